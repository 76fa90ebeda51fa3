// Sync: who is being asked to report everything again, why, and how far it is; and what is kept on disk.
import { element, ask, problem, empty, table, number, count, bytes, seconds, clock } from './dom.js';

export const title = 'Sync';
let place;
let timer;

export function show(main) {
  place = element('div', {});
  main.append(place);
  load();
  timer = setInterval(load, 2000);
}

export function hide() { clearInterval(timer); }

async function load() {
  const mine = place;
  try {
    mine.replaceChildren(...draw(await ask('sync')));
  } catch (error) {
    mine.replaceChildren(problem(error));
  }
}

const kind = { 'in sync': 'good', unproved: 'soft', wanted: 'warn', running: 'warn', unrepairable: 'bad' };
/** Rows drawn at most: a page of thousands would not keep up with its own refreshing. */
const MOST = 200;
const order = ['in sync', 'unproved', 'wanted', 'running', 'unrepairable'];
const urgency = (worker) => Math.max(worker.sync_wanted ? 2 : 0, ...worker.locations.map((one) => order.indexOf(one.state)));
const ago = (at) => (at == null ? '–' : `${seconds(Math.max(0, Date.now() / 1000 - at))} ago`);

function draw(report) {
  const card = (label, value, note) => element('div', { class: 'card' }, element('div', { class: 'label' }, label), element('div', { class: 'value' }, value), element('div', { class: 'soft' }, note ?? ' '));
  const rows = [...report.workers].sort((a, b) => urgency(b) - urgency(a)).flatMap((worker) => {
    const name = `${worker.instance_id}:${worker.worker_id}`;
    const asked = worker.sync_wanted ? `asked: ${worker.sync_wanted.reason}` : null;
    if (worker.locations.length === 0) return [[name, '–', asked ?? 'nothing reported yet', '–', number(worker.key_count), '–', '–']];
    return worker.locations.map((one) => [
      name, one.location,
      element('span', { class: kind[one.state] }, [one.state, one.reason ?? asked].filter(Boolean).join(', ')),
      one.batches_announced == null ? '–' : element('progress', { max: one.batches_announced || 1, value: one.batches_received, 'aria-label': `${one.batches_received} of ${one.batches_announced} batches` }),
      number(one.key_count), number(one.sequence_gaps), ago(one.last_proof),
    ]);
  });
  return [
    element('div', { class: 'cards' },
      card('Workers ready', `${(report.progress * 100).toFixed(0)} %`),
      card('Syncing now', count(report.workers_syncing), `${count(report.workers_completed)} completed`),
      card('Batches missing', count(report.missing_batches)),
      card('Sequence gaps', count(report.sequence_gaps))),
    element('h2', {}, 'Workers'),
    rows.length === 0
      ? empty('No worker is registered, so there is nothing to sync. See Diagnose for what to check.')
      : table('Sync by worker', ['Worker', 'Location', 'State', 'Progress', ['Keys', 'number'], ['Gaps', 'number'], 'Last proof'], rows.slice(0, MOST)),
    rows.length > MOST ? element('p', { class: 'soft' }, `${count(rows.length - MOST)} more rows, none of them more urgent; /sync lists all.`) : '',
    element('h2', {}, 'State on disk'), ...disk(report.persistence),
  ];
}

/** What a restart would find. */
function disk(kept) {
  if (!kept || kept.state === 'off') return [element('p', { class: 'soft' }, 'Nothing is kept: after a restart every worker is asked for all its keys.')];
  const facts = [
    ['State', element('span', { class: kept.state === 'failing' ? 'bad' : 'good' }, kept.state === 'failing' ? `failing: ${kept.reason}; ${kept.remedy}` : kept.state)],
    ['Directory', kept.directory ?? '–'], ['Journal', bytes(kept.journal_bytes)],
    ['Last snapshot', kept.last_snapshot ? `${clock(kept.last_snapshot.at)}, ${count(kept.last_snapshot.keys)} keys, ${bytes(kept.last_snapshot.bytes)}, took ${seconds(kept.last_snapshot.took_s)}` : 'none since the start'],
    ['Found at the start', `${count(kept.restored.workers)} workers, ${count(kept.restored.keys)} keys, took ${seconds(kept.restored.took_s)}${kept.restored.damages?.length ? `; damaged: ${kept.restored.damages.join('; ')}` : ''}`],
  ];
  return [table('State on disk', ['What', 'Now'], facts)];
}
