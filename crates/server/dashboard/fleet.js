// Fleet: every worker, filtered, sorted and paged by the controller; or every instance with its sum.
import { element, ask, badge, count, empty, head, hue, number, problem, repeat, seconds, segments, table } from './dom.js';
import { icon } from './icons.js';
import { prepare } from './actions.js';

export const title = 'Fleet';
const wanted = { q: '', sort: 'worker', desc: false, offset: 0, limit: 50 };
const SORTS = { worker: 'Worker', seen: 'Last sign of life', keys: 'Keys', gaps: 'Gaps' };
let by = 'workers';
let place;
let end;
let turn = 0;

export function show(main) {
  const again = (change) => { Object.assign(wanted, { offset: 0 }, change); load(); };
  const search = element('input', { type: 'search', value: wanted.q, placeholder: 'Instance, rank or address   ( / )', 'aria-label': 'Filter', oninput: (event) => again({ q: event.target.value }) });
  const sort = element('select', { onchange: (event) => again({ sort: event.target.value, desc: event.target.value !== 'worker' }) },
    Object.entries(SORTS).map(([value, text]) => element('option', { value, selected: value === wanted.sort }, text)));
  const rows = element('select', { onchange: (event) => again({ limit: Number(event.target.value) }) },
    [10, 50, 200].map((some) => element('option', { selected: some === wanted.limit }, String(some))));
  place = element('div', {});
  main.append(
    head('Fleet', 'Every worker with its last sign of life, its keys by location, and whether its reports are complete.',
      segments('Shown', [['workers', 'Workers'], ['instances', 'Instances']], by, (chosen) => { by = chosen; again({}); })),
    element('div', { class: 'toolbar', role: 'search' }, element('div', { class: 'grow' }, icon('lookup'), search), element('label', { class: 'only-small' }, 'Sort', sort), element('label', {}, 'Rows', rows)), place);
  end = repeat(load, 2000);
}

export function hide() { end(); turn += 1; }

async function load() {
  turn += 1;
  const mine = turn;
  try {
    const page = await (by === 'workers' ? ask(`fleet?${new URLSearchParams(wanted)}`) : instances());
    if (mine !== turn) return;
    const marked = document.getSelection();
    // Text that is being copied, or a row that is being read by keyboard, keeps still.
    if (!marked.isCollapsed && place.contains(marked.anchorNode)) return;
    draw(page);
  } catch (error) {
    if (mine === turn) place.replaceChildren(problem(error));
  }
}

/** A page of instances, in the shape of a page of workers. */
async function instances() {
  const { instances: all } = await ask('controller/key-stats');
  const matching = all.filter((one) => one.instance_id.toLowerCase().includes(wanted.q.toLowerCase()));
  matching.sort(wanted.sort === 'keys' ? (a, b) => a.key_count - b.key_count : (a, b) => a.instance_id.localeCompare(b.instance_id, 'en', { numeric: true }));
  if (wanted.desc) matching.reverse();
  return { instances: matching.slice(wanted.offset, wanted.offset + wanted.limit), most: Math.max(1, ...all.map((one) => one.key_count)), total_count: all.length, matching_count: matching.length, offset: wanted.offset };
}

/** Silence that is normal (heartbeats come every 10 s), worth a look, alarming. */
function sign(worker) {
  const [name, kind] = worker.silent_s < 30 ? ['alive', 'good'] : worker.silent_s < 120 ? ['quiet', 'warn'] : ['silent', 'bad'];
  return element('span', {}, badge(kind, name), ' ', element('small', { class: 'soft' }, `${seconds(worker.silent_s)} ago${worker.heartbeat_seen ? '' : ', no heartbeat ever'}`));
}

const bars = (worker, most) => element('div', { class: 'bars' }, worker.locations.map((one) => element('div', {},
  element('span', {}, one.location), element('span', {}, count(one.key_count)), element('i', { style: `--hue:${hue(one.location)};--part:${(one.key_count / most) * 100}%` }))));

const SYNC = { 'in sync': 'good', incomplete: 'bad', unproved: 'none', wanted: 'warn', running: 'busy', unrepairable: 'bad' };

/** What a location's state is called; with keys missing it is not in sync, whatever its numbers say. */
const stateOf = (one) => (one.incomplete && one.sync === 'in sync' ? 'incomplete' : one.sync);

/** How far the full syncs of a worker are. */
function batches(worker) {
  const sum = (name) => worker.locations.reduce((all, one) => all + (one[name] ?? 0), 0);
  return `syncing, ${count(sum('batches_received'))} of ${count(sum('batches_announced'))}`;
}

function workerRows(page) {
  const most = Math.max(1, ...page.workers.flatMap((worker) => worker.locations.map((one) => one.key_count)));
  return page.workers.map((worker) => {
    const states = [...new Set(worker.locations.flatMap((one) => (one.incomplete ? [stateOf(one), 'incomplete'] : [one.sync])))];
    const cell = (kind, ...children) => element('td', { class: kind }, children);
    return [
      cell('plain', element('b', {}, worker.instance_id), element('span', { class: 'soft' }, `:${worker.worker_id}`)), cell('plain', element('span', { class: 'mono soft' }, `${worker.ip}:${worker.port}`)),
      cell('plain', sign(worker)), number(worker.key_count), cell('full plain', bars(worker, most)), number(worker.gaps),
      cell('', states.length ? states.map((state) => (state === 'incomplete'
        ? element('a', { href: '#sync', title: worker.locations.find((one) => one.incomplete).incomplete.remedy }, badge(SYNC[state], state))
        : badge(SYNC[state], state === 'running' ? batches(worker) : state))) : '–'),
    ];
  });
}

function instanceRows(page) {
  return page.instances.map((one) => [
    element('td', { class: 'plain' }, element('b', {}, one.instance_id)), number(one.worker_count), number(one.key_count),
    element('td', { class: 'full plain' }, element('div', { class: 'rows' }, element('span', { class: 'bar', style: `--part:${(one.key_count / page.most) * 100}%` }))),
    element('td', { class: 'plain' }, element('button', { type: 'button', class: 'small', 'aria-label': `Command ${one.instance_id}`, onclick: () => prepare({ instance_id: one.instance_id }) }, 'Command…')),
  ]);
}

function draw(page) {
  const focused = document.activeElement?.dataset?.focus;
  if (page.total_count === 0) {
    place.replaceChildren(empty('No worker is registered', element('p', {}, 'The ', element('a', { href: '#overview' }, 'Overview'), ' has a configuration to copy; ', element('a', { href: '#diagnose' }, 'Diagnose'), ' says what to check if a worker should be here.')));
    return;
  }
  const turned = (sort) => ({ sort, desc: wanted.sort === sort ? !wanted.desc : sort !== 'worker', offset: 0 });
  const heading = (name, sort, kind) => element('th', { scope: 'col', role: 'columnheader', class: kind, 'data-name': name, 'aria-sort': wanted.sort === sort && (wanted.desc ? 'descending' : 'ascending') },
    element('button', { type: 'button', 'data-focus': sort, onclick: () => { Object.assign(wanted, turned(sort)); load(); } }, `${name}${wanted.sort === sort ? (wanted.desc ? ' ↓' : ' ↑') : ''}`));
  const step = (name, by, possible) => element('button', { type: 'button', class: 'small', 'data-focus': name, disabled: !possible, onclick: () => { wanted.offset = Math.max(0, wanted.offset + by); load(); } }, name);
  const last = Math.min(page.offset + wanted.limit, page.matching_count);
  const [caption, columns, rows] = by === 'workers'
    ? ['Workers', [heading('Worker', 'worker'), 'Address', heading('Last sign of life', 'seen'), heading('Keys', 'keys', 'number'), 'By location', heading('Gaps', 'gaps', 'number'), 'Reports'], workerRows(page)]
    : ['Instances', [heading('Instance', 'worker'), ['Workers', 'number'], heading('Keys', 'keys', 'number'), 'Share', ''], instanceRows(page)];
  place.replaceChildren(
    table(caption, columns, rows, true),
    element('div', { class: 'pager' }, element('span', { role: 'status' }, page.matching_count ? `${count(page.offset + 1)} to ${count(last)} of ${count(page.matching_count)}${page.matching_count < page.total_count ? ` (${count(page.total_count)} in all)` : ''}` : `None of ${count(page.total_count)} matches.`),
      step('Previous', -wanted.limit, page.offset > 0), step('Next', wanted.limit, last < page.matching_count)));
  if (focused) place.querySelector(`[data-focus="${focused}"]`)?.focus();
}
