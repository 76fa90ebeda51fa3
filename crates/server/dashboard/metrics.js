// Metrics: what Prometheus reads, searchable, with how each value has moved since the page was opened.
import { element, ask, count, head, problem, repeat, table } from './dom.js';
import { icon } from './icons.js';
import { spark } from './chart.js';

export const title = 'Metrics';
/** Values remembered of each metric, and the time between two. */
const KEPT = 60;
const PERIOD = 2500;
let end;
let wanted = '';

export function show(main) {
  const search = element('input', { type: 'search', value: wanted, 'aria-label': 'Filter', placeholder: 'Part of a name or label   ( / )' });
  const place = element('div', {});
  const seen = new Map();
  let rows = [];
  const draw = () => {
    const shown = rows.filter((row) => row.key.toLowerCase().includes(wanted.toLowerCase()));
    place.replaceChildren(shown.length === 0 && rows.length ? element('p', { class: 'soft' }, `None of ${count(rows.length)} metrics matches.`) : table('Metrics', ['Name', ['Value', 'number'], ['Per second', 'number'], 'Since you look', 'Meaning'], shown.map(cells), true));
  };
  const cells = (row) => {
    const past = seen.get(row.key);
    const [first, last] = [past[0], past.at(-1)];
    const rate = row.counts && past.length > 1 ? (last.value - first.value) / (last.at - first.at) : null;
    return [
      element('td', { class: 'full plain' }, element('code', {}, broken(row.name), element('span', { class: 'soft' }, row.labels))), element('td', { class: 'number' }, shown(row.value)),
      element('td', { class: 'number' }, rate == null ? '' : count(rate)), element('td', { class: 'plain' }, spark(past.map((one) => one.value))), element('td', { class: 'full plain' }, element('span', { class: 'soft small' }, row.help)),
    ];
  };
  search.addEventListener('input', () => { wanted = search.value; draw(); });
  main.append(head('Metrics', 'Everything the controller tells Prometheus, as it changes.', element('div', { class: 'pair' }, element('a', { class: 'button', href: 'metrics' }, 'Text for Prometheus'), element('a', { class: 'button', href: 'docs' }, 'HTTP endpoints'))),
    element('div', { class: 'toolbar', role: 'search' }, element('div', { class: 'grow' }, icon('lookup'), search)), place);
  end = repeat(async (still) => {
    try {
      const parsed = parse(await ask('metrics'));
      if (!still()) return;
      rows = parsed;
      for (const { key, value } of rows) {
        const past = seen.get(key) ?? [];
        past.push({ at: Date.now() / 1000, value: Number(value) });
        if (past.length > KEPT) past.shift();
        seen.set(key, past);
      }
      draw();
    } catch (error) {
      if (still()) place.replaceChildren(problem(error));
    }
  }, PERIOD);
}

export function hide() { end(); }

/** A name that may break after its underscores. */
const broken = (name) => name.split(/(?<=_)/).flatMap((part) => [part, element('wbr')]);

/** A value as people read it; tiny ones as they are. */
const shown = (text) => (Number.isFinite(Number(text)) && (Math.abs(Number(text)) >= 0.1 || Number(text) === 0) ? Number(text).toLocaleString('en-US', { maximumFractionDigits: 2 }) : text);

function parse(text) {
  const help = new Map();
  const kinds = new Map();
  const rows = [];
  for (const line of text.split('\n')) {
    const [, about, name, said] = line.match(/^# (HELP|TYPE) (\S+) (.*)/) ?? [];
    if (about) (about === 'HELP' ? help : kinds).set(name, said);
    const found = line.match(/^([^#\s][^\s{]*)(\{.*\})? (\S+)/);
    if (!found || found[1].endsWith('_bucket')) continue;
    const family = [found[1], found[1].replace(/_(sum|count|total)$/, '')].find((some) => help.has(some) || kinds.has(some));
    rows.push({ key: found[1] + (found[2] ?? ''), name: found[1], labels: found[2] ?? '', value: found[3], help: help.get(family) ?? '', counts: kinds.get(family) !== 'gauge' });
  }
  return rows;
}
