// A line chart as SVG: series of {at, value}; a null value is a hole.
import { element, seconds } from './dom.js';

const SPACE = 'http://www.w3.org/2000/svg';
const WIDTH = 300;
const HEIGHT = 100;

function shape(name, attributes) {
  const made = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** A card with the chart; `format` renders a value, `names` the series if there are several. */
export function chart(title, series, format, names = []) {
  const points = series.flat().filter((point) => point.value != null);
  const last = series.map((one) => one.findLast((point) => point.value != null)?.value);
  const now = last.map((value, i) => `${names[i] ? `${names[i]} ` : ''}${value == null ? '–' : format(value)}`).join(', ');
  const card = element('figure', { class: 'card', style: 'margin:0' }, element('figcaption', { class: 'label' }, `${title}: ${now}`));
  if (points.length < 2) {
    card.append(element('p', { class: 'soft' }, 'nothing to draw yet'));
    return card;
  }
  const begin = Math.min(...points.map((point) => point.at));
  const end = Math.max(...points.map((point) => point.at));
  const top = Math.max(...points.map((point) => point.value));
  const svg = shape('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': `${title}, at most ${format(top)}, now ${now}` });
  const x = (point) => ((point.at - begin) / Math.max(end - begin, 1e-9)) * WIDTH;
  const y = (point) => HEIGHT - 2 - (point.value / (top || 1)) * (HEIGHT - 8);
  series.forEach((one, i) => {
    let pen = 'M';
    let line = '';
    for (const point of one) {
      if (point.value == null) { pen = 'M'; continue; }
      line += `${pen}${x(point).toFixed(1)},${y(point).toFixed(1)}`;
      pen = 'L';
    }
    if (i === 0 && !one.some((point) => point.value == null)) {
      svg.append(shape('path', { class: 'area', d: `${line}L${WIDTH},${HEIGHT}L0,${HEIGHT}Z` }));
    }
    svg.append(shape('path', { class: i ? 'line second' : 'line', d: line }));
  });
  card.append(svg, element('div', { class: 'soft', style: 'display:flex;justify-content:space-between;font-size:.78rem' }, element('span', {}, `${seconds(Math.max(1, Math.round(end - begin)))} ago`), element('span', {}, `top ${format(top)}`)));
  return card;
}
