// Metrics: what Prometheus reads, searchable.
import { element, ask, problem, table } from './dom.js';

export const title = 'Metrics';
let timer;

export function show(main) {
  const search = element('input', { type: 'search', placeholder: 'part of a name' });
  const place = element('div', {});
  const load = async () => {
    try {
      const rows = parse(await ask('metrics')).filter(([name]) => name.includes(search.value));
      place.replaceChildren(table('Metrics', ['Name', ['Value', 'number'], 'Meaning'], rows.map(([name, value, help]) => [element('code', {}, name), element('td', { class: 'number' }, value), help])));
    } catch (error) {
      place.replaceChildren(problem(error));
    }
  };
  search.addEventListener('input', load);
  main.append(element('form', { role: 'search', onsubmit: (event) => event.preventDefault() }, element('label', {}, 'Filter', search)), element('p', {}, element('a', { href: 'metrics' }, 'the page for Prometheus')), place);
  load();
  timer = setInterval(load, 3000);
}

export function hide() { clearInterval(timer); }

function parse(text) {
  const help = new Map();
  const rows = [];
  for (const line of text.split('\n')) {
    const described = line.match(/^# HELP (\S+) (.*)/);
    if (described) help.set(described[1], described[2]);
    const found = line.match(/^([^#\s][^\s{]*)(\{.*\})? (\S+)/);
    if (found && !found[1].endsWith('_bucket')) rows.push([found[1] + (found[2] ?? ''), found[3], help.get(found[1]) ?? help.get(found[1].replace(/_(sum|count|total)$/, '')) ?? '']);
  }
  return rows;
}
