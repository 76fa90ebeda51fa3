// Fleet: every worker, filtered, sorted and paged by the controller.
import { element, ask, problem, empty, table, number, count, seconds } from './dom.js';

export const title = 'Fleet';
const wanted = { q: '', sort: 'worker', desc: false, offset: 0, limit: 50 };
let place;
let timer;
let turn = 0;

export function show(main) {
  const search = element('input', { type: 'search', value: wanted.q, placeholder: 'instance, rank or address', oninput: (event) => { wanted.q = event.target.value; wanted.offset = 0; load(); } });
  const rows = element('select', { onchange: (event) => { wanted.limit = Number(event.target.value); wanted.offset = 0; load(); } },
    [10, 50, 200].map((some) => element('option', { selected: some === wanted.limit }, String(some))));
  place = element('div', {});
  main.append(element('form', { role: 'search', onsubmit: (event) => event.preventDefault() }, element('label', {}, 'Filter', search), element('label', {}, 'Rows', rows)), place);
  load();
  timer = setInterval(load, 2000);
}

export function hide() { clearInterval(timer); turn += 1; }

async function load() {
  turn += 1;
  const mine = turn;
  try {
    const query = new URLSearchParams(wanted);
    const page = await ask(`fleet?${query}`);
    if (mine === turn) draw(page);
  } catch (error) {
    if (mine === turn) place.replaceChildren(problem(error));
  }
}

/** Silence that is normal (heartbeats come every 10 s), worth a look, alarming. */
function sign(worker) {
  const [name, kind] = worker.silent_s < 30 ? ['alive', 'good'] : worker.silent_s < 120 ? ['quiet', 'warn'] : ['silent', 'bad'];
  return element('span', { class: kind }, `${name}, ${seconds(worker.silent_s)}${worker.heartbeat_seen ? '' : ', no heartbeat ever'}`);
}

function bars(worker) {
  const most = Math.max(1, ...worker.locations.map((one) => one.key_count));
  return element('div', { class: 'bars' }, worker.locations.map((one) => element('div', { style: `background-size:${(one.key_count / most) * 100}% 100%` }, `${one.location} ${count(one.key_count)}`)));
}

function draw(page) {
  const focused = document.activeElement?.dataset?.sort;
  const heading = (name, sort, kind) => element('th', { scope: 'col', class: kind, 'aria-sort': wanted.sort === sort ? (wanted.desc ? 'descending' : 'ascending') : false },
    element('button', { type: 'button', 'data-sort': sort, onclick: () => { wanted.desc = wanted.sort === sort ? !wanted.desc : sort !== 'worker'; wanted.sort = sort; wanted.offset = 0; load(); } }, `${name}${wanted.sort === sort ? (wanted.desc ? ' ↓' : ' ↑') : ''}`));
  if (page.total_count === 0) {
    place.replaceChildren(empty('No worker is registered. See Diagnose for what to check.'));
    return;
  }
  const rows = page.workers.map((worker) => [
    `${worker.instance_id}:${worker.worker_id}`, `${worker.ip}:${worker.port}`, sign(worker), number(worker.key_count), bars(worker),
    number(worker.gaps), [...new Set(worker.locations.map((one) => one.sync))].join(', ') || '–',
  ]);
  const step = (name, by, possible) => element('button', { type: 'button', disabled: !possible, onclick: () => { wanted.offset = Math.max(0, wanted.offset + by); load(); } }, name);
  const end = Math.min(page.offset + wanted.limit, page.matching_count);
  place.replaceChildren(
    element('div', { class: 'pager' }, step('Previous', -wanted.limit, page.offset > 0), element('span', {}, page.matching_count ? `${page.offset + 1} to ${end} of ${page.matching_count} (${page.total_count} in all)` : `none of ${page.total_count} matches`), step('Next', wanted.limit, end < page.matching_count)),
    table('Workers', [heading('Worker', 'worker'), 'Address', heading('Last sign of life', 'seen'), heading('Keys', 'keys', 'number'), 'By location', heading('Gaps', 'gaps', 'number'), 'Sync'], rows));
  if (focused) place.querySelector(`[data-sort="${focused}"]`)?.focus();
}
