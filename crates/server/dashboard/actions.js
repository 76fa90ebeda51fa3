// Actions: one form for every command, a confirmation in words, and the history of events.
import { element, ask, problem, empty, table, count, seconds, clock, integers } from './dom.js';

export const title = 'Actions';

/** What each command takes, and what it will do in words. */
const commands = {
  health: { fields: [], says: (v) => `Ask every worker of ${v.instance_id} whether it is well.` },
  pin: { fields: ['location', 'tokens'], says: (v) => `Pin ${count(v.tokens.length)} tokens in ${v.location} of ${v.instance_id}, so that they are not evicted.` },
  clear: { fields: ['location'], says: (v) => `Throw away everything in ${v.location} of ${v.instance_id}. This cannot be undone.` },
  move: { fields: ['location', 'target', 'target_location', 'tokens?', 'copy'], says: (v) => `${v.copy ? 'Copy' : 'Move'} ${v.tokens.length ? `${count(v.tokens.length)} tokens` : 'everything'} from ${v.location} of ${v.instance_id} to ${v.target_location} of ${v.target}.` },
  compress: { fields: ['location', 'method', 'tokens?'], says: (v) => `Compress ${v.tokens.length ? `${count(v.tokens.length)} tokens` : 'everything'} in ${v.location} of ${v.instance_id} with ${v.method}.` },
  decompress: { fields: ['location', 'method', 'tokens?'], says: (v) => `Decompress ${v.tokens.length ? `${count(v.tokens.length)} tokens` : 'everything'} in ${v.location} of ${v.instance_id} with ${v.method}.` },
};

let history;
let timer;

export async function show(main) {
  const form = element('form', {});
  const outcome = element('div', { 'aria-live': 'polite' });
  history = element('div', {});
  main.append(form, outcome, element('h2', {}, 'Events'), history);
  loadEvents();
  timer = setInterval(loadEvents, 1500);
  try {
    const [stats, workers] = await Promise.all([ask('controller/key-stats'), ask('fleet?limit=500')]);
    const instances = stats.instances.map((one) => one.instance_id);
    const locations = [...new Set(workers.workers.flatMap((worker) => worker.locations.map((one) => one.location)))];
    build(form, outcome, instances, locations.length ? locations : ['LocalCPUBackend']);
  } catch (error) {
    form.replaceChildren(problem(error));
  }
}

export function hide() { clearInterval(timer); }

function build(form, outcome, instances, locations) {
  if (instances.length === 0) {
    form.replaceChildren(empty('No instance is registered, so there is nobody to command.'));
    return;
  }
  const select = (options) => element('select', {}, options.map((one) => element('option', {}, one)));
  const input = {
    command: select(Object.keys(commands)), instance_id: select(instances), location: select(locations), target: select(instances),
    target_location: select(locations), method: element('input', { value: 'cachegen' }), tokens: element('textarea', { placeholder: 'tokens of the prompt' }),
    copy: element('input', { type: 'checkbox' }),
  };
  if (instances.length > 1) input.target.selectedIndex = 1;
  const names = { command: 'Command', instance_id: 'Instance', location: 'Location', target: 'To instance', target_location: 'To location', method: 'Method', tokens: 'Tokens', copy: 'Keep the original' };
  const labels = Object.fromEntries(Object.entries(input).map(([name, field]) => [name, element('label', { class: name === 'tokens' ? 'wide' : name === 'copy' ? 'row' : false }, names[name], field)]));
  const send = element('button', { class: 'primary' }, 'Continue');
  const arrange = () => {
    const { fields } = commands[input.command.value];
    const shown = ['command', 'instance_id', ...fields.map((name) => name.replace('?', ''))];
    labels.tokens.firstChild.textContent = fields.includes('tokens?') ? 'Tokens (empty: everything)' : 'Tokens';
    form.replaceChildren(...shown.map((name) => labels[name]), send);
  };
  input.command.addEventListener('change', arrange);
  arrange();
  form.onsubmit = async (event) => {
    event.preventDefault();
    const v = Object.fromEntries(Object.entries(input).map(([name, field]) => [name, field.value]));
    v.tokens = commands[v.command].fields.some((name) => name.startsWith('tokens')) ? integers(input.tokens.value) : [];
    v.copy = input.copy.checked;
    if (commands[v.command].fields.includes('tokens') && v.tokens.length === 0) {
      outcome.replaceChildren(problem('this command needs the tokens of a prompt'));
      return;
    }
    if (v.command === 'health' || await confirmed(commands[v.command].says(v))) run(v, outcome);
  };
}

/** Asks once more, in words. */
function confirmed(sentence) {
  return new Promise((resolve) => {
    const dialog = element('dialog', { 'aria-label': 'Confirm' }, element('p', {}, sentence),
      element('form', { method: 'dialog' }, element('button', { value: 'no' }, 'Cancel'), element('button', { class: 'primary', value: 'yes' }, 'Do it')));
    dialog.addEventListener('close', () => { resolve(dialog.returnValue === 'yes'); dialog.remove(); });
    document.body.append(dialog);
    dialog.showModal();
  });
}

function body(v) {
  const tokens = v.tokens.length ? v.tokens : undefined;
  const base = { instance_id: v.instance_id, location: v.location };
  switch (v.command) {
    case 'health': return { instance_id: v.instance_id };
    case 'clear': return base;
    case 'pin': return { ...base, tokens };
    case 'move': return { old_position: [v.instance_id, v.location], new_position: [v.target, v.target_location], tokens, should_copy: v.copy };
    default: return { ...base, method: v.method, tokens };
  }
}

async function run(v, outcome) {
  try {
    const { event_id: id } = await ask(`${v.command}?wait=false`, body(v));
    if (!id) { outcome.replaceChildren(problem('the instance has left')); return; }
    for (;;) {
      const event = await ask(`events/${encodeURIComponent(id)}`);
      outcome.replaceChildren(progress(event));
      loadEvents();
      if (event.state !== 'running') return;
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
  } catch (error) {
    outcome.replaceChildren(problem(error));
  }
}

const kind = { finished: 'good', failed: 'bad', partial: 'warn', running: 'soft' };

function steps(event) {
  return element('ul', {}, event.steps.map((step) => element('li', {}, `${step.worker}: `, element('span', { class: kind[step.state] }, step.state),
    step.num_tokens == null ? '' : `, ${count(step.num_tokens)} tokens`, step.error_code == null ? '' : `, code ${step.error_code}`,
    step.duration == null ? '' : `, ${seconds(step.duration)}`, step.error ? `: ${step.error}` : '')));
}

function progress(event) {
  const done = event.steps.filter((step) => step.state !== 'running').length;
  return element('div', { class: 'card' }, element('strong', {}, `${event.command} ${event.instance_id}${event.target_instance_id ? ` → ${event.target_instance_id}` : ''}: `), element('span', { class: kind[event.state] }, event.state),
    event.state === 'running' ? element('progress', { max: event.steps.length || 1, value: done, 'aria-label': 'workers done' }) : null,
    event.error ? element('p', { class: 'bad' }, event.error) : null, steps(event));
}

async function loadEvents() {
  try {
    const { events } = await ask('events?limit=30');
    if (document.activeElement && history.contains(document.activeElement) && document.activeElement.tagName === 'SUMMARY') return;
    const open = new Set([...history.querySelectorAll('details[open]')].map((one) => one.dataset.id));
    history.replaceChildren(events.length === 0 ? empty('No command has been given yet.') : table('Events', ['When', 'Command', 'Instance', 'State', 'Tokens', 'Took', 'Workers'], events.map((event) => [
      clock(event.started_at), event.command, event.target_instance_id ? `${event.instance_id} → ${event.target_instance_id}` : event.instance_id,
      element('span', { class: kind[event.state] }, event.state), event.num_tokens == null ? '–' : count(event.num_tokens), seconds(event.duration),
      element('details', { open: open.has(event.event_id), 'data-id': event.event_id }, element('summary', {}, `${event.steps.length}`), steps(event)),
    ])));
  } catch (error) {
    history.replaceChildren(problem(error));
  }
}
