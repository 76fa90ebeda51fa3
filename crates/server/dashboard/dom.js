// Making elements and asking the controller. Text always goes in as text: nothing that came over
// the network is ever parsed as HTML.
import { another, authorization } from './token.js';
import { icon } from './icons.js';

/** An element with attributes (`on...`: listeners) and children. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, '');
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return made;
}

/** Asks the controller; throws an Error with its own words when it refuses. */
export async function ask(path, body, options = {}) {
  let response;
  try {
    response = await fetch(path, body === undefined ? { headers: authorization(), ...options } : {
      method: 'POST', headers: { 'content-type': 'application/json', ...authorization() }, body: JSON.stringify(body), ...options,
    });
  } catch {
    throw new Error('The controller does not answer: is it running, and can this browser reach it?');
  }
  if ((response.status === 401 || response.status === 403) && await another(response)) return ask(path, body, options);
  const text = await response.text();
  if (!response.ok) throw new Error(detail(text) || `${response.status} ${response.statusText}`);
  return response.headers.get('content-type')?.includes('json') ? JSON.parse(text) : text;
}

function detail(text) {
  try {
    const { detail } = JSON.parse(text);
    if (typeof detail === 'string') return detail;
    return detail.map((one) => `${one.loc.join('.')}: ${one.msg}`).join('; ');
  } catch {
    return text.slice(0, 300);
  }
}

/** Calls `work` now and then every `period` ms, one at a time, until the function given back is called. */
export function repeat(work, period) {
  let ended = false;
  let timer;
  const turn = async () => {
    await work(() => !ended);
    if (!ended) timer = setTimeout(turn, period);
  };
  turn();
  return () => { ended = true; clearTimeout(timer); };
}

/** The heading of a page: what it is, what it is for, and controls at its right. */
export const head = (title, lead, ...controls) => element('div', { class: 'head' }, element('h1', {}, title), controls, element('p', { class: 'lead' }, lead));

/** A card with a heading. */
export const panel = (title, ...children) => element('section', { class: 'card' }, element('div', { class: 'top' }, element('h2', {}, title)), children);

/** A number worth a card of its own. */
export const tile = (label, value, note) => element('div', { class: 'card' }, element('div', { class: 'label' }, label), element('div', { class: 'value' }, value), element('div', { class: 'note' }, note ?? ''));

/** A state in a word; kind: good, warn, bad, busy or none. */
export const badge = (kind, text) => element('span', { class: `badge ${kind}` }, text);

/** A box that says what went wrong. */
export const problem = (error) => element('p', { class: 'problem', role: 'alert' }, error.message ?? String(error));

/** A box for a place with nothing in it yet, saying what to do. */
export const empty = (title, ...children) => element('div', { class: 'empty' }, element('h2', {}, title), children);

/** Findings in a row of their own; kind: good, warn or bad. */
export function notice(kind, sentences, ...more) {
  return element('div', { class: `notice ${kind}` }, icon(kind === 'good' ? 'well' : 'alarm'),
    element('div', {}, sentences.length === 1 ? element('p', {}, sentences[0]) : element('ul', {}, sentences.map((one) => element('li', {}, one))), more));
}

/** Text to be taken elsewhere, with a button that does so. */
export function copyable(text) {
  const button = element('button', { type: 'button', class: 'small', onclick: async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = 'Copied';
    } catch {
      // Without TLS or permission a browser only lets people copy by hand.
      getSelection().selectAllChildren(box.firstChild);
      button.textContent = 'Selected';
    }
  } }, 'Copy');
  const box = element('div', { class: 'copy' }, element('pre', { tabindex: '0' }, text), button);
  return box;
}

/** One of several, as buttons side by side. `options`: [value, text]. */
export function segments(label, options, chosen, choose) {
  const box = element('div', { class: 'segments', role: 'group', 'aria-label': label }, options.map(([value, text]) => element('button', { type: 'button', 'aria-pressed': String(value === chosen), onclick: (event) => {
    for (const button of box.children) button.setAttribute('aria-pressed', String(button === event.currentTarget));
    choose(value);
  } }, text)));
  return box;
}

/**
 * A table that scrolls sideways, or, with `stack`, becomes cards on a small screen. `columns`: names,
 * [name, class] or cells; a cell of class `full` has a row of its own in a card, `plain` no label.
 */
export function table(caption, columns, rows, stack = false) {
  const names = columns.map((column) => (column instanceof Node ? column.dataset.name ?? column.textContent : [column].flat()[0]));
  const heads = columns.map((column) => (column instanceof Node ? column : element('th', { scope: 'col', role: 'columnheader', class: Array.isArray(column) && column[1] }, [column].flat()[0])));
  const cell = (content, i) => {
    const made = content instanceof HTMLTableCellElement ? content : element('td', {}, content ?? '');
    made.setAttribute('role', 'cell');
    if (stack && names[i]) made.dataset.label = names[i];
    return made;
  };
  return element('div', { class: stack ? 'scroll stack' : 'scroll', tabindex: '0', role: 'region', 'aria-label': caption },
    element('table', { role: 'table' }, element('thead', { role: 'rowgroup' }, element('tr', { role: 'row' }, heads)),
      element('tbody', { role: 'rowgroup' }, rows.map((row) => element('tr', { role: 'row' }, row.map(cell))))));
}

export const number = (value) => element('td', { class: 'number' }, count(value));

/** The color of a location, the same on every page. */
export function hue(location) {
  const known = { LocalCPUBackend: 'one', LocalDiskBackend: 'two' }[location];
  return `var(--${known ?? (/remote|redis|mooncake|infini|valkey/i.test(location) ? 'three' : 'four')})`;
}

/** 1234567 as 1,234,567. */
export const count = (value) => Number(value).toLocaleString('en-US', { maximumFractionDigits: 1 });

/** Bytes for people. */
export function bytes(value) {
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${value.toFixed(value < 10 && unit ? 1 : 0)} ${units[unit]}`;
}

/** Seconds for people. */
export function seconds(value) {
  if (value == null) return '–';
  if (value < 1e-3) return `${(value * 1e6).toFixed(0)} µs`;
  if (value < 1) return `${(value * 1e3).toFixed(value < 0.01 ? 1 : 0)} ms`;
  if (value < 120) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
  if (value < 7200) return `${(value / 60).toFixed(0)} min`;
  return `${(value / 3600).toFixed(1)} h`;
}

/** A time of day. */
export const clock = (at) => new Date(at * 1000).toLocaleTimeString();

/** Integers in any text: a JSON body, a list, one per line. */
export function integers(text) {
  const inside = text.match(/"tokens"\s*:\s*\[([^\]]*)\]/)?.[1] ?? text;
  return (inside.match(/-?\d+/g) ?? []).map(Number);
}

/** A field for the tokens of a prompt, with how many it has; a file can be chosen or dropped. */
export function tokenField(label, text, heard = () => {}) {
  const area = element('textarea', { spellcheck: 'false', placeholder: '{"tokens": [1, 2, 3]}, or any list of integers, or drop a file here' });
  const said = element('span', { class: 'beside soft' });
  const told = () => {
    const many = integers(area.value).length;
    said.textContent = many ? `${count(many)} tokens` : '';
    heard(area.value);
  };
  const take = async (file) => { if (file) { area.value = await file.text(); told(); } };
  area.value = text;
  area.addEventListener('input', told);
  area.addEventListener('dragover', (event) => event.preventDefault());
  area.addEventListener('drop', (event) => { if (event.dataTransfer.files.length) { event.preventDefault(); take(event.dataTransfer.files[0]); } });
  told();
  const file = element('input', { type: 'file', hidden: true, onchange: () => take(file.files[0]) });
  const choose = element('button', { type: 'button', onclick: () => file.click() }, 'Choose a file');
  const caption = document.createTextNode(label);
  return { area, caption, field: element('label', { class: 'wide' }, caption, area), under: [choose, file, said], tell: told };
}
