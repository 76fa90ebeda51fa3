// Making elements and asking the controller. Text always goes in as text: nothing that came over
// the network is ever parsed as HTML.
import { another, authorization } from './token.js';

/** An element with attributes (`on...`: listeners) and children. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, '');
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child != null));
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
    throw new Error('the controller does not answer: is it running, and can this browser reach it?');
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

/** A box that says what went wrong. */
export const problem = (error) => element('p', { class: 'problem', role: 'alert' }, error.message ?? String(error));

/** A box for a place with nothing in it yet, saying what to do. */
export const empty = (...children) => element('div', { class: 'empty' }, ...children);

/** A table that scrolls sideways on a small screen. `head`: names, or [name, class]. */
export function table(caption, head, rows) {
  const cells = head.map((cell) => (cell instanceof Node ? cell : Array.isArray(cell) ? element('th', { scope: 'col', class: cell[1] }, cell[0]) : element('th', { scope: 'col' }, cell)));
  return element('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption },
    element('table', {}, element('thead', {}, element('tr', {}, cells)),
      element('tbody', {}, rows.map((row) => element('tr', {}, row.map((cell) => (cell instanceof HTMLTableCellElement ? cell : element('td', {}, cell ?? ''))))))));
}

export const number = (value) => element('td', { class: 'number' }, count(value));

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
