// Actions: one form for every command, a confirmation in words, live progress, and the history of events.
import { element, ask, badge, clock, count, empty, head, integers, problem, repeat, seconds, table, tokenField } from './dom.js';

export const title = 'Actions';

/** What each command takes, what it is for, and what it will do in words. */
const commands = {
  health: { fields: [], about: 'Ask the workers how they are', says: (v) => `Ask every worker of ${v.instance_id} whether it is well.` },
  pin: { fields: ['location', 'tokens'], about: 'Keep a prompt from eviction', says: (v) => `Pin ${count(v.tokens.length)} tokens in ${v.location} of ${v.instance_id}, so that they are not evicted.` },
  move: { fields: ['location', 'target', 'target_location', 'tokens?', 'copy'], about: 'Hand chunks to another instance', says: (v) => `${v.copy ? 'Copy' : 'Move'} ${v.tokens.length ? `${count(v.tokens.length)} tokens` : 'everything'} from ${v.location} of ${v.instance_id} to ${v.target_location} of ${v.target}.` },
  compress: { fields: ['location', 'method', 'tokens?'], about: 'Make chunks smaller', says: (v) => `Compress ${v.tokens.length ? `${count(v.tokens.length)} tokens` : 'everything'} in ${v.location} of ${v.instance_id} with ${v.method}.` },
  decompress: { fields: ['location', 'method', 'tokens?'], about: 'Undo a compression', says: (v) => `Decompress ${v.tokens.length ? `${count(v.tokens.length)} tokens` : 'everything'} in ${v.location} of ${v.instance_id} with ${v.method}.` },
  clear: { fields: ['location'], about: 'Throw a location away', danger: true, says: (v) => `Throw away everything in ${v.location} of ${v.instance_id}. This cannot be undone.` },
};

/** What the form will begin with: set from other pages, kept while they are shown. */
let begin = { command: 'health', tokens: '' };
let history;
let end;
let watched = 0;

/** Opens this page with the form filled in. */
export function prepare(values) {
  begin = { ...begin, ...values };
  location.hash = '#actions';
}

export async function show(main) {
  const form = element('form', { class: 'card' });
  const outcome = element('div', { 'aria-live': 'polite', style: 'margin-top:.8rem' });
  history = element('div', {});
  main.append(head('Actions', 'Commands to the workers of an instance. What changes shows up as the workers report it.'), form, outcome, element('h2', {}, 'History'), history);
  end = repeat(loadEvents, 1500);
  try {
    const [stats, workers] = await Promise.all([ask('controller/key-stats'), ask('fleet?limit=500')]);
    const instances = stats.instances.map((one) => one.instance_id);
    const locations = [...new Set(workers.workers.flatMap((worker) => worker.locations.map((one) => one.location)))].sort();
    build(form, outcome, instances, locations.length ? locations : ['LocalCPUBackend']);
  } catch (error) {
    form.replaceWith(problem(error));
  }
}

export function hide() { end(); watched += 1; }

function build(form, outcome, instances, locations) {
  if (instances.length === 0) {
    form.replaceWith(empty('No instance is registered', element('p', {}, 'So there is nobody to command. The ', element('a', { href: '#overview' }, 'Overview'), ' says how to bring one.')));
    return;
  }
  const select = (options, chosen) => element('select', {}, options.map((one) => element('option', { selected: one === chosen }, one)));
  const prompt = tokenField('Tokens', begin.tokens, (now) => { begin.tokens = now; });
  const other = instances.find((one) => one !== (begin.instance_id ?? instances[0]));
  const input = {
    instance_id: select(instances, begin.instance_id), location: select(locations, begin.location), target: select(instances, other),
    target_location: select(locations, begin.location), method: element('input', { value: 'cachegen' }), tokens: prompt.area,
    copy: element('input', { type: 'checkbox', checked: begin.copy ?? true }),
  };
  const names = { instance_id: 'Instance', location: 'Location', target: 'To instance', target_location: 'To location', method: 'Method', copy: 'Keep the original' };
  const labels = Object.fromEntries(Object.entries(names).map(([name, text]) => [name, element('label', { class: name === 'copy' && 'row' }, name === 'copy' ? [input.copy, text] : [text, input[name]])]));
  labels.tokens = prompt.field;
  const choices = element('fieldset', { class: 'choices' }, element('legend', {}, 'Command'), Object.entries(commands).map(([name, { about }]) => element('label', {},
    element('input', { type: 'radio', name: 'command', value: name, checked: name === begin.command, 'aria-label': name, onchange: () => { begin.command = name; arrange(); } }), element('b', {}, name), element('span', { class: 'small' }, about))));
  const send = element('button', { class: 'primary' }, 'Continue');
  // Apart from the choice, which keeps the focus while the rest changes.
  const rest = element('div', { style: 'display:contents' });
  form.append(choices, rest);
  const arrange = () => {
    const { fields } = commands[begin.command];
    prompt.caption.data = fields.includes('tokens?') ? 'Tokens (empty: everything)' : 'Tokens';
    const takesTokens = fields.some((name) => name.startsWith('tokens'));
    rest.replaceChildren(...['instance_id', ...fields].map((name) => labels[name.replace('?', '')]), send, ...(takesTokens ? prompt.under : []));
  };
  arrange();
  form.onsubmit = async (event) => {
    event.preventDefault();
    const v = Object.fromEntries(Object.entries(input).map(([name, field]) => [name, field.value]));
    v.command = begin.command;
    const command = commands[v.command];
    v.tokens = command.fields.some((name) => name.startsWith('tokens')) ? integers(input.tokens.value) : [];
    v.copy = input.copy.checked;
    const refused = command.fields.includes('tokens') && v.tokens.length === 0 ? 'This command needs the tokens of a prompt.'
      : v.command === 'move' && v.instance_id === v.target && v.location === v.target_location ? 'Choose another instance or location to move to.' : null;
    if (refused) outcome.replaceChildren(problem(refused));
    else if (v.command === 'health' || await confirmed(v.command === 'move' && v.copy ? 'Copy' : v.command[0].toUpperCase() + v.command.slice(1), command.says(v), command.danger)) run(v, outcome);
  };
}

/** Asks once more, in words; `verb` is on the button. */
function confirmed(verb, sentence, danger) {
  return new Promise((resolve) => {
    const dialog = element('dialog', { 'aria-label': 'Confirm' }, element('h2', {}, `${verb}?`), element('p', {}, sentence),
      element('form', { method: 'dialog' }, element('button', { value: 'no' }, 'Cancel'), element('button', { class: danger ? 'danger' : 'primary', value: 'yes' }, verb)));
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
  watched += 1;
  const mine = watched;
  try {
    const { event_id: id } = await ask(`${v.command}?wait=false`, body(v));
    if (!id) { outcome.replaceChildren(problem('The instance has left.')); return; }
    while (mine === watched) {
      const event = await ask(`events/${encodeURIComponent(id)}`);
      if (mine === watched) outcome.replaceChildren(progress(event));
      if (event.state !== 'running') break;
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
    loadEvents();
  } catch (error) {
    if (mine === watched) outcome.replaceChildren(problem(error));
  }
}

const kind = { finished: 'good', failed: 'bad', partial: 'warn', running: 'busy' };

const steps = (event) => element('ul', { class: 'steps' }, event.steps.map((step) => element('li', {}, element('b', {}, step.worker), badge(kind[step.state], step.state),
  step.num_tokens == null ? null : element('span', {}, `${count(step.num_tokens)} tokens`), step.error_code == null ? null : element('span', { class: step.error_code ? 'bad' : 'soft' }, `code ${step.error_code}`),
  step.duration == null ? null : element('span', { class: 'soft' }, seconds(step.duration)), step.error ? element('span', { class: 'bad' }, step.error) : null)));

function progress(event) {
  const done = event.steps.filter((step) => step.state !== 'running').length;
  const running = event.state === 'running';
  return element('div', { class: 'card' }, element('div', { class: 'top' },
    element('h3', {}, `${event.command} ${event.instance_id}${event.target_instance_id ? ` → ${event.target_instance_id}` : ''}`),
    element('span', {}, element('span', { class: 'soft small' }, running ? `${count(done)} of ${count(event.steps.length)} workers, ${seconds(Math.max(0, Date.now() / 1000 - event.started_at))} ` : `${seconds(event.duration)} `), badge(kind[event.state], event.state))),
    running ? element('progress', { max: event.steps.length || 1, value: done, 'aria-label': 'workers done' }) : null,
    event.error ? element('p', { class: 'bad' }, event.error) : null, steps(event));
}

async function loadEvents() {
  try {
    const { events } = await ask('events?limit=30');
    const focused = document.activeElement?.tagName === 'SUMMARY' && document.activeElement.parentElement.dataset.id;
    const open = new Set([...history.querySelectorAll('details[open]')].map((one) => one.dataset.id));
    const cell = (style, ...children) => element('td', { class: style }, children);
    history.replaceChildren(events.length === 0 ? empty('No command has been given yet', element('p', { class: 'soft' }, 'Choose one above. “health” changes nothing and is a good first one.')) : table('Events', ['When', 'Command', 'Instance', 'State', 'Tokens', 'Took', 'Workers'], events.map((event) => [
      cell('plain soft', clock(event.started_at)), cell('plain', element('b', {}, event.command)), cell('plain', event.target_instance_id ? `${event.instance_id} → ${event.target_instance_id}` : event.instance_id),
      cell('plain', badge(kind[event.state], event.state)), event.num_tokens == null ? '–' : count(event.num_tokens), seconds(event.duration),
      cell('full plain', element('details', { open: open.has(event.event_id), 'data-id': event.event_id }, element('summary', {}, `${count(event.steps.length)} ${event.steps.length === 1 ? 'worker' : 'workers'}`), event.error ? element('p', { class: 'bad' }, event.error) : null, steps(event))),
    ]), true));
    if (focused) history.querySelector(`[data-id="${CSS.escape(focused)}"] summary`)?.focus();
  } catch (error) {
    history.replaceChildren(problem(error));
  }
}
