// Overview: the fleet in numbers, and how they came about during the last hour.
import { element, count, bytes, seconds, empty } from './dom.js';
import { chart } from './chart.js';

export const title = 'Overview';
let cards;
let charts;
let hint;

export function show(main, live) {
  cards = element('div', { class: 'cards' });
  charts = element('div', { class: 'charts' });
  hint = element('div', {});
  main.append(hint, cards, charts);
  sample(live);
}

/** What happened between two samples, per second. */
function between(earlier, later, bounds) {
  const span = Math.max(later.at - earlier.at, 1e-3);
  const hits = later.lookups.hits - earlier.lookups.hits;
  const misses = later.lookups.misses - earlier.lookups.misses;
  const peers = later.peer_lookups.hits + later.peer_lookups.misses - earlier.peer_lookups.hits - earlier.peer_lookups.misses;
  return {
    at: later.at,
    operations: Math.max(0, later.operations - earlier.operations) / span,
    lookups: Math.max(0, hits + misses) / span,
    peers: Math.max(0, peers) / span,
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

/** At most `most` samples, evenly spread, so that rates do not jitter. */
function thinned(samples, most) {
  const step = Math.max(1, Math.ceil(samples.length / most));
  return samples.filter((_, i) => (samples.length - 1 - i) % step === 0);
}

export function sample(live) {
  const now = live.samples.at(-1);
  if (!now || !cards) return;
  const before = live.samples.findLast((one) => one.at <= now.at - 5) ?? live.samples[0];
  const rate = between(before, now, live.bounds);
  const card = (label, value, note) => element('div', { class: 'card' }, element('div', { class: 'label' }, label), element('div', { class: 'value' }, value), element('div', { class: 'soft' }, note ?? ' '));
  hint.replaceChildren(now.workers === 0 ? empty(
    element('p', {}, 'No worker is registered yet. Point LMCache at this host:'),
    element('pre', {}, 'enable_controller: True\nlmcache_instance_id: "engine-0"\ncontroller_pull_url: "HOST:8300"\ncontroller_reply_url: "HOST:8400"\nlmcache_worker_ports: [8001]'),
    element('p', {}, 'or try a simulated fleet: ', element('code', {}, 'kvatlas demo'))) : '');
  cards.replaceChildren(
    card('Instances', count(now.instances)),
    card('Workers', count(now.workers), now.workers_syncing ? `${now.workers_syncing} syncing` : null),
    card('Keys', count(now.keys), `${bytes(now.index_bytes)} of index`),
    card('Operations', `${count(Math.round(rate.operations))}/s`),
    card('Lookups', `${count(rate.lookups)}/s`, rate.hitRate == null ? 'none just now' : `${(rate.hitRate * 100).toFixed(0)} % hit`),
    card('Peer lookups', `${count(rate.peers)}/s`),
    card('Lookup p50 / p99', `${rate.p50 ? `≤ ${seconds(rate.p50)}` : '–'}`, rate.p99 ? `p99 ≤ ${seconds(rate.p99)}` : null),
    card('Sequence gaps', count(now.gaps), now.bad_messages ? `${count(now.bad_messages)} bad messages` : null),
  );
  const kept = thinned(live.samples, 120);
  const rates = kept.slice(1).map((one, i) => between(kept[i], one, live.bounds));
  const series = (pick) => rates.map((one) => ({ at: one.at, value: pick(one) }));
  charts.replaceChildren(
    chart('Keys', [kept.map((one) => ({ at: one.at, value: one.keys }))], count),
    chart('Workers', [kept.map((one) => ({ at: one.at, value: one.workers }))], count),
    chart('Operations per second', [series((one) => one.operations)], count),
    chart('Lookups per second', [series((one) => one.lookups), series((one) => one.peers)], count, ['lookups', 'peer lookups']),
    chart('Hit rate', [series((one) => one.hitRate)], (value) => `${(value * 100).toFixed(0)} %`),
    chart('Lookup latency, upper bound', [series((one) => one.p50), series((one) => one.p99)], seconds, ['p50', 'p99']),
  );
}
