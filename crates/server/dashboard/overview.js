// Overview: whether all is well, the fleet in numbers, and how they came about.
import { element, ask, badge, bytes, clock, copyable, count, empty, head, notice, panel, repeat, seconds, segments, tile } from './dom.js';
import { chart } from './chart.js';

export const title = 'Overview';
/** Instances and commands that have room here. */
const SHOWN = 6;
/** Points of a chart at most. */
const POINTS = 150;
let span = 300;
let view = null;
let ends = [];

export function show(main, live) {
  const percent = (value) => `${(value * 100).toFixed(0)} %`;
  view = {
    health: element('div'), cards: element('div', { class: 'cards' }),
    keys: chart('Keys', count), workers: chart('Workers', count), operations: chart('Operations per second', count),
    lookups: chart('Lookups per second', count, ['lookups', 'peer lookups']), hits: chart('Hit rate', percent, [''], 1),
    latency: chart('Lookup latency, upper bound', seconds, ['p50', 'p99']),
    instances: panel('Instances by keys', element('div')), commands: panel('Last commands', element('div')),
  };
  const charts = [view.keys, view.operations, view.lookups, view.hits, view.latency, view.workers];
  view.rest = element('div', {}, view.cards, element('div', { class: 'charts' }, charts.map((one) => one.card)),
    element('div', { class: 'halves' }, view.instances, view.commands));
  const range = segments('Time shown', [[300, '5 min'], [900, '15 min'], [3600, '1 h']], span, (wanted) => { span = wanted; sample(live); });
  main.append(head('Overview', 'Who holds how much, how fast reports come in and questions are answered.', range), view.health, view.rest);
  view.rest.hidden = true;
  sample(live);
  ends = [repeat(health, 5000), repeat(panels, 2500)];
}

export function hide() {
  for (const end of ends) end();
  view = null;
}

async function health(wanted) {
  try {
    const { reasons, workers } = await ask('diagnose');
    if (!wanted()) return;
    const well = reasons[0]?.startsWith('nothing is wrong');
    const more = element('a', { href: '#diagnose' }, 'Look closer');
    view.health.replaceChildren(workers === 0 ? welcome(reasons.join(' '))
      : well ? notice('good', [workers === 1 ? 'The one worker is well.' : `All ${count(workers)} workers are well.`])
        : notice('warn', reasons.slice(0, 4), more));
  } catch {
    // The bar above says so already.
  }
}

/** What to do when nobody is there; `said` names our ports. */
function welcome(said) {
  const [, pull, reply] = said.match(/ports (\d+) and (\d+)/) ?? [null, '8300', '8400'];
  const host = location.hostname;
  return empty('Nobody is registered yet',
    element('p', { class: 'soft' }, 'This page fills itself as soon as the first worker comes. Two ways to get there:'),
    element('ol', {},
      element('li', {}, 'An engine with LMCache: put this into its configuration and start it.',
        copyable(`enable_controller: True\nlmcache_instance_id: "engine-0"\ncontroller_pull_url: "${host}:${pull}"\ncontroller_reply_url: "${host}:${reply}"\nlmcache_worker_ports: [8001]\nlmcache_worker_heartbeat_time: 10`)),
      element('li', {}, 'No engine at hand: a simulated one.',
        copyable(`kvatlas worker --instance-id engine-0 --pull-url ${host}:${pull} --reply-url ${host}:${reply} --worker-ports 0,0 --warm-up 50`))));
}

async function panels(wanted) {
  try {
    const [stats, { events }] = await Promise.all([ask('controller/key-stats'), ask(`events?limit=${SHOWN}`)]);
    if (!wanted()) return;
    const order = [...stats.instances].sort((a, b) => b.key_count - a.key_count);
    const most = Math.max(1, order[0]?.key_count ?? 0);
    view.instances.lastChild.replaceWith(element('div', { class: 'rows' }, order.slice(0, SHOWN).map((one) => element('div', { class: 'line' },
      element('span', {}, one.instance_id, ' ', element('small', { class: 'soft' }, `${count(one.worker_count)} ${one.worker_count === 1 ? 'worker' : 'workers'}`)),
      element('span', { class: 'bar', style: `--part:${(one.key_count / most) * 100}%` }), element('b', {}, count(one.key_count)))),
    order.length > SHOWN ? element('a', { href: '#fleet' }, `${count(order.length - SHOWN)} more`) : null));
    const kind = { finished: 'good', failed: 'bad', partial: 'warn', running: 'busy' };
    view.commands.lastChild.replaceWith(events.length === 0
      ? element('p', { class: 'soft' }, 'None yet. ', element('a', { href: '#actions' }, 'Pin, move or clear something'), '.')
      : element('div', { class: 'rows' }, events.map((event) => element('div', { class: 'line' },
        badge(kind[event.state], event.state), element('span', {}, `${event.command} ${event.instance_id}${event.target_instance_id ? ` → ${event.target_instance_id}` : ''}`), element('small', { class: 'soft' }, clock(event.started_at))))));
  } catch {
    // The bar above says so already.
  }
}

/** What happened between two samples, per second. */
function between(earlier, later, bounds) {
  const time = Math.max(later.at - earlier.at, 1e-3);
  const hits = later.lookups.hits - earlier.lookups.hits;
  const misses = later.lookups.misses - earlier.lookups.misses;
  const peers = later.peer_lookups.hits + later.peer_lookups.misses - earlier.peer_lookups.hits - earlier.peer_lookups.misses;
  return {
    at: later.at,
    operations: Math.max(0, later.operations - earlier.operations) / time,
    lookups: Math.max(0, hits + misses) / time,
    peers: Math.max(0, peers) / time,
    hitRate: hits + misses > 0 ? hits / (hits + misses) : null,
    p50: quantile(earlier.lookups.latency, later.lookups.latency, bounds, 0.5),
    p99: quantile(earlier.lookups.latency, later.lookups.latency, bounds, 0.99),
  };
}

/** Upper bound of the bucket in which the quantile of what came between two histograms lies. */
function quantile(earlier, later, bounds, share) {
  const total = later.at(-1) - earlier.at(-1);
  if (total <= 0) return null;
  const bucket = later.findIndex((sum, i) => sum - earlier[i] >= share * total);
  return bounds[bucket] ?? bounds.at(-1);
}

/** The last sample of each stretch of time: the same ones from draw to draw, so that lines keep still. */
function thinned(samples, step) {
  return samples.filter((one, i) => i === 0 || i === samples.length - 1 || Math.floor(one.at / step) !== Math.floor(samples[i + 1].at / step));
}

export function sample(live) {
  const now = live.samples.at(-1);
  if (!now || !view) return;
  view.rest.hidden = now.workers === 0 && now.operations === 0;
  const before = live.samples.findLast((one) => one.at <= now.at - 5) ?? live.samples[0];
  const rate = between(before, now, live.bounds);
  view.cards.replaceChildren(
    tile('Workers', count(now.workers), now.workers_syncing ? `${count(now.workers_syncing)} syncing` : `${count(now.instances)} instances`),
    tile('Keys', count(now.keys), `${bytes(now.index_bytes)} of index`),
    tile('Operations', `${count(Math.round(rate.operations))}/s`, `${count(now.operations)} in all`),
    tile('Lookups', `${count(rate.lookups)}/s`, rate.hitRate == null ? 'none just now' : `${(rate.hitRate * 100).toFixed(0)} % hit`),
    tile('Lookup latency', rate.p50 ? `≤ ${seconds(rate.p50)}` : '–', rate.p99 ? `p50; p99 ≤ ${seconds(rate.p99)}` : 'no lookup just now'),
    tile('Sequence gaps', count(now.gaps), now.bad_messages ? `${count(now.bad_messages)} bad messages` : 'no bad message'),
  );
  const begin = Math.max(live.samples[0].at, now.at - span);
  const step = Math.max(2, (now.at - begin) / POINTS);
  const kept = thinned(live.samples.filter((one) => one.at >= begin - step), step);
  const rates = kept.slice(1).map((one, i) => between(kept[i], one, live.bounds));
  const of = (some, pick) => some.map((one) => ({ at: one.at, value: pick(one) })).filter((one) => one.at >= begin);
  view.keys.draw([of(kept, (one) => one.keys)], begin, now.at);
  view.workers.draw([of(kept, (one) => one.workers)], begin, now.at);
  view.operations.draw([of(rates, (one) => one.operations)], begin, now.at);
  view.lookups.draw([of(rates, (one) => one.lookups), of(rates, (one) => one.peers)], begin, now.at);
  view.hits.draw([of(rates, (one) => one.hitRate)], begin, now.at);
  view.latency.draw([of(rates, (one) => one.p50), of(rates, (one) => one.p99)], begin, now.at);
}
