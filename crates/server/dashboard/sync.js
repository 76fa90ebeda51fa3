// Sync: who is being asked to report everything again, why, and how far it is; and what is kept on disk.
import { element, ask, badge, bytes, clock, count, empty, head, notice, number, panel, problem, repeat, seconds, table, tile } from './dom.js';

export const title = 'Sync';
let end;

export function show(main) {
  const place = element('div', {});
  main.append(head('Sync', 'Reports that went missing are repaired by asking a worker for everything it holds. Here is who is asked, and how far it is.'), place);
  end = repeat(async (wanted) => {
    try {
      const report = await ask('sync');
      if (wanted()) place.replaceChildren(...draw(report));
    } catch (error) {
      if (wanted()) place.replaceChildren(problem(error));
    }
  }, 2000);
}

export function hide() { end(); }

const kind = { 'in sync': 'good', incomplete: 'bad', unproved: 'none', wanted: 'warn', running: 'busy', unrepairable: 'bad' };
/** Rows drawn at most: a page of thousands would not keep up with its own refreshing. */
const MOST = 200;
const order = ['in sync', 'unproved', 'wanted', 'running', 'unrepairable', 'incomplete'];
/** With keys missing a location is not in sync, whatever its numbers say. */
const stateOf = (one) => (one.incomplete && one.state === 'in sync' ? 'incomplete' : one.state);
const urgency = (worker) => Math.max(worker.sync_wanted ? 2 : 0, ...worker.locations.map((one) => order.indexOf(one.incomplete ? 'incomplete' : one.state)));
const ago = (at) => (at == null ? '' : `${seconds(Math.max(0, Date.now() / 1000 - at))} ago`);

function row(worker, one) {
  const asked = worker.sync_wanted ? `asked: ${worker.sync_wanted.reason}` : null;
  const why = [one?.reason ?? asked, one?.incomplete && `${one.incomplete.limit} is reached`].filter(Boolean).join('; ');
  const cell = (style, ...children) => element('td', { class: style }, children);
  return [
    cell('plain', element('b', {}, worker.instance_id), element('span', { class: 'soft' }, `:${worker.worker_id}`)), cell('plain', one?.location ?? '–'),
    cell('full plain', element('span', {}, one ? badge(kind[stateOf(one)], stateOf(one)) : badge('none', 'nothing reported yet'), why ? element('small', { class: 'soft' }, ` ${why}`) : '')),
    cell('full', one?.batches_announced == null ? '' : [element('progress', { max: one.batches_announced || 1, value: one.batches_received, 'aria-label': `${one.batches_received} of ${one.batches_announced} batches` }), element('small', { class: 'soft' }, `${one.batches_received} of ${one.batches_announced} batches`)]),
    number(one?.key_count ?? worker.key_count), one ? number(one.sequence_gaps) : '', ago(one?.last_proof),
  ];
}

function draw(report) {
  const rows = [...report.workers].sort((a, b) => urgency(b) - urgency(a)).flatMap((worker) => (worker.locations.length ? worker.locations.map((one) => row(worker, one)) : [row(worker, null)]));
  return [
    ...keptOut(report.workers),
    element('div', { class: 'cards' },
      tile('Workers ready', report.workers.length ? `${(report.progress * 100).toFixed(0)} %` : '–', `${count(report.workers.length)} workers`),
      tile('Syncing now', count(report.workers_syncing), `${count(report.workers_completed)} completed`),
      tile('Batches missing', count(report.missing_batches), 'of the syncs under way'),
      tile('Sequence gaps', count(report.sequence_gaps), 'since the start')),
    disk(report.persistence),
    element('h2', {}, 'Workers'),
    rows.length === 0
      ? empty('No worker is registered', element('p', {}, 'So there is nothing to sync. ', element('a', { href: '#diagnose' }, 'Diagnose'), ' says what to check.'))
      : table('Sync by worker', ['Worker', 'Location', 'State', 'Progress', ['Keys', 'number'], ['Gaps', 'number'], 'Last proof'], rows.slice(0, MOST), true),
    rows.length > MOST ? element('p', { class: 'soft' }, `${count(rows.length - MOST)} more rows, none of them more urgent; /sync lists all.`) : '',
  ];
}

/** Workers that a limit keeps keys out of, by limit, and what to do about it. */
function keptOut(workers) {
  const limits = new Map();
  for (const worker of workers) {
    for (const { limit, remedy } of worker.locations.flatMap((one) => one.incomplete ?? [])) {
      const known = limits.get(limit) ?? { remedy, names: new Set() };
      limits.set(limit, known);
      known.names.add(`${worker.instance_id}:${worker.worker_id}`);
    }
  }
  return [...limits].map(([limit, { remedy, names }]) => {
    const some = [...names].slice(0, 5).join(', ') + (names.size > 5 ? ` and ${count(names.size - 5)} more` : '');
    return notice('bad', [`${limit} is reached: some keys of ${some} are not known here. Lookups credit ${names.size === 1 ? 'it' : 'them'} with too little, never with too much.`, `What to do: ${remedy}.`]);
  });
}

/** What a restart would find. */
function disk(kept) {
  const card = (badged, ...facts) => {
    const made = panel('State on disk', ...facts);
    made.firstChild.append(badged);
    made.style.marginTop = '.8rem';
    return made;
  };
  if (!kept || kept.state === 'off') return card(badge('none', 'off'), element('p', { class: 'soft' }, 'Nothing is kept: after a restart every worker is asked for all its keys. Set state_dir to keep them.'));
  const fact = (name, ...value) => element('div', { class: 'line' }, element('span', { class: 'soft' }, name), element('span', {}, value));
  const found = kept.restored;
  return card(kept.state === 'failing' ? badge('bad', 'failing') : badge('good', 'kept'), element('div', { class: 'rows' },
    kept.state === 'failing' ? fact('Why', element('span', { class: 'bad' }, kept.reason)) : null,
    kept.remedy ? fact('What to do', kept.remedy) : null,
    fact('Directory', element('code', {}, kept.directory ?? '–')), fact('Journal', bytes(kept.journal_bytes)),
    fact('Last snapshot', kept.last_snapshot ? `${clock(kept.last_snapshot.at)}, ${count(kept.last_snapshot.keys)} keys, ${bytes(kept.last_snapshot.bytes)}, took ${seconds(kept.last_snapshot.took_s)}` : 'none since the start'),
    fact('Found at the start', `${count(found.workers)} workers, ${count(found.keys)} keys, took ${seconds(found.took_s)}`,
      found.workers_left_out ? element('span', { class: 'bad' }, `; the keys of ${count(found.workers_left_out)} are left out, for all together need more than max_index_bytes`) : '', found.damages?.length ? element('span', { class: 'bad' }, `; damaged: ${found.damages.join('; ')}`) : '')));
}
