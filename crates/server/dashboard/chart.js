// A live line chart: made once, then told what to draw. Series of {at, value}; a null value is a hole.
import { element, clock, seconds } from './dom.js';

const SPACE = 'http://www.w3.org/2000/svg';
const WIDTH = 1000;
const HEIGHT = 100;
/** Room above the highest value, and under zero, for the width of the line. */
const TOP = 4;
const BOTTOM = 1;

function shape(name, attributes) {
  const made = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** The next round number above. */
function round(value) {
  if (!(value > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  // Half of it stands beside the chart too.
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((some) => some * unit >= value * 0.9999 && (unit < 1 || Number.isInteger((some * unit) / 2) || some === 10)) * unit;
}

const path = (points) => {
  let pen = 'M';
  let line = '';
  for (const point of points) {
    if (point.y == null) { pen = 'M'; continue; }
    line += `${pen}${point.x.toFixed(1)},${point.y.toFixed(2)}`;
    pen = 'L';
  }
  return line;
};

/** Stretches without holes, closed at the ground. */
function areas(points) {
  const parts = [];
  let run = [];
  for (const point of [...points, { y: null }]) {
    if (point.y != null) { run.push(point); continue; }
    if (run.length > 1) parts.push(`${path(run)}L${run.at(-1).x.toFixed(1)},${HEIGHT}L${run[0].x.toFixed(1)},${HEIGHT}Z`);
    run = [];
  }
  return parts.join('');
}

/**
 * A chart; `format` renders a value, `names` the series if there are several, `top` is the highest
 * value possible if it is known. `draw(series, begin, end)` shows them.
 */
export function chart(title, format, names = [''], top = null) {
  const now = element('span', { class: 'now' });
  const svg = shape('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img' });
  for (const y of [TOP, (HEIGHT - BOTTOM + TOP) / 2, HEIGHT - BOTTOM]) svg.append(shape('line', { class: 'grid', x1: 0, x2: WIDTH, y1: y, y2: y }));
  const area = svg.appendChild(shape('path', { class: 'area' }));
  const lines = names.map((_, i) => svg.appendChild(shape('path', { class: i ? 'line second' : 'line' })));
  const high = element('span', { class: 'top' });
  const half = element('span', { class: 'middle' });
  const cross = element('div', { class: 'cross', hidden: true });
  const tip = element('div', { class: 'tip', hidden: true });
  const none = element('div', { class: 'none soft' }, 'nothing to draw yet');
  const plot = element('div', { class: 'plot' }, svg, high, half, cross, tip, none);
  const from = element('span');
  const card = element('figure', { class: 'card chart' }, element('figcaption', {}, element('span', { class: 'label' }, title), now), plot,
    element('div', { class: 'axis' }, from, element('span', {}, 'now')));
  let drawn = null;

  function point(event) {
    if (!drawn?.series[0].length) return;
    const box = plot.getBoundingClientRect();
    const at = drawn.begin + ((event.clientX - box.left) / box.width) * (drawn.end - drawn.begin);
    const nearest = drawn.series[0].reduce((best, one) => (Math.abs(one.at - at) < Math.abs(best.at - at) ? one : best));
    const left = ((nearest.at - drawn.begin) / (drawn.end - drawn.begin)) * box.width;
    const values = drawn.series.map((one, i) => [names[i], one.find((other) => other.at === nearest.at)?.value]).map(([name, value]) => `${name ? `${name} ` : ''}${value == null ? '–' : format(value)}`);
    cross.style.left = `${left}px`;
    tip.textContent = `${values.join(', ')} at ${clock(nearest.at)}`;
    cross.hidden = tip.hidden = false;
    tip.style.left = `${Math.max(0, Math.min(box.width - tip.offsetWidth, left - tip.offsetWidth / 2))}px`;
  }
  plot.addEventListener('pointermove', point);
  plot.addEventListener('pointerleave', () => { cross.hidden = tip.hidden = true; });

  function draw(series, begin, end) {
    drawn = { series, begin, end };
    const known = series.flat().filter((one) => one.value != null);
    const ceiling = top ?? round(Math.max(0, ...known.map((one) => one.value)));
    none.hidden = known.length > 1;
    high.textContent = known.length > 1 ? format(ceiling) : '';
    half.textContent = known.length > 1 ? format(ceiling / 2) : '';
    from.textContent = `${seconds(Math.max(1, Math.round(end - begin)))} ago`;
    now.replaceChildren(...series.map((one, i) => {
      const value = one.findLast((some) => some.value != null)?.value;
      return element('span', {}, names[i] ? [element('i'), element('small', {}, `${names[i]} `)] : null, value == null ? '–' : format(value));
    }));
    const placed = series.map((one) => one.map(({ at, value }) => ({
      x: ((at - begin) / Math.max(end - begin, 1e-9)) * WIDTH,
      y: value == null ? null : HEIGHT - BOTTOM - (Math.min(value, ceiling) / ceiling) * (HEIGHT - BOTTOM - TOP),
    })));
    lines.forEach((line, i) => line.setAttribute('d', path(placed[i])));
    area.setAttribute('d', areas(placed[0]));
    svg.setAttribute('aria-label', `${title}: now ${now.textContent}${known.length ? `, at most ${format(Math.max(...known.map((one) => one.value)))}` : ''}`);
  }
  return { card, draw };
}

/** A line without axes, for a row of a table. */
export function spark(values) {
  const svg = shape('svg', { viewBox: '0 0 100 20', preserveAspectRatio: 'none', class: 'spark', 'aria-hidden': 'true' });
  const low = Math.min(...values);
  const span = Math.max(...values) - low;
  if (values.length > 1) svg.append(shape('path', { d: path(values.map((value, i) => ({ x: (i / (values.length - 1)) * 100, y: span ? 19 - ((value - low) / span) * 18 : 10 }))) }));
  return svg;
}
