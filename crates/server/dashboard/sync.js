// Sync: who is being asked to report everything again, why, and how far it is.
import { element, ask, problem, empty, table, count, seconds } from './dom.js';

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
  try {
    draw(await ask('sync'));
  } catch (error) {
    place.replaceChildren(problem(error));
  }
}

function draw(report) {
  const workers = report.workers ?? [];
  const { workers: _, ...rest } = report;
  const facts = Object.entries(rest).filter(([, value]) => typeof value !== 'object');
  place.replaceChildren(
    element('div', { class: 'cards' }, facts.map(([name, value]) => element('div', { class: 'card' }, element('div', { class: 'label' }, name.replaceAll('_', ' ')), element('div', { class: 'value' }, typeof value === 'number' ? count(value) : String(value))))),
    element('h2', {}, 'Workers'),
    workers.length === 0 ? empty('No worker is registered.') : table('Sync by worker', ['Worker', 'Location', 'State', 'Progress', 'Reason', 'Missing', 'Last proof'], workers.map((one) => [
      `${one.instance_id}:${one.worker_id}`, one.location ?? 'default', one.state,
      one.announced ? element('progress', { max: one.announced, value: one.received, 'aria-label': `${one.received} of ${one.announced} batches` }) : '–',
      one.reason ?? '–', one.missing_batches == null ? '–' : count(Array.isArray(one.missing_batches) ? one.missing_batches.length : one.missing_batches),
      one.proved_at == null ? '–' : `${seconds(Date.now() / 1000 - one.proved_at)} ago`,
    ])));
}
