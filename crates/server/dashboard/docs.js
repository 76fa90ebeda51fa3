// The endpoints, drawn from openapi.json: parameters, bodies, answers, and a form that sends the
// request and shows it as a line for curl.
import { element, ask, problem } from './dom.js';
import { authorization, another } from './token.js';
import { menu } from './frame.js';

const main = document.getElementById('main');
let description;

/** Text whose `words` in backticks are code. */
const words = (text = '') => text.split('`').map((part, n) => (n % 2 ? element('code', {}, part) : part));

/** What a `$ref` stands for. */
function resolved(node) {
  if (!node?.$ref) return node;
  return node.$ref.slice(2).split('/').reduce((at, key) => at[key], description);
}

/** A schema in one line: its name, or its type. */
function typeName(schema) {
  if (!schema || schema === true) return 'any';
  if (schema.$ref) return schema.$ref.split('/').at(-1);
  if (schema.anyOf) return schema.anyOf.map(typeName).join(' or ');
  if (schema.enum) return schema.enum.map((word) => JSON.stringify(word)).join(' | ');
  if (schema.prefixItems) return `[${schema.prefixItems.map(typeName).join(', ')}]`;
  if (schema.type === 'array') return `list of ${typeName(schema.items)}`;
  if (schema.additionalProperties && schema.type === 'object') return `map to ${typeName(schema.additionalProperties)}`;
  return [schema.type].flat().join(' or ') || 'any';
}

/** The fields of an object, those of its parts opened on demand. */
function fields(schema, depth = 0) {
  const seen = resolved(schema);
  if (!seen || depth > 4) return null;
  if (seen.anyOf) return seen.anyOf.map((one) => fields(one, depth)).filter(Boolean);
  if (seen.items) return fields(seen.items, depth);
  if (!seen.properties) return seen.description && depth === 0 ? element('p', { class: 'soft' }, words(seen.description)) : null;
  const required = new Set(seen.required ?? []);
  return element('dl', { class: 'fields' }, Object.entries(seen.properties).map(([name, part]) => {
    const inner = depth < 4 ? fields(part, depth + 1) : null;
    const about = part.description ?? resolved(part)?.description;
    return [
      element('dt', {}, element('code', {}, name), ' ', element('span', { class: 'soft' }, typeName(part) + (required.has(name) ? '' : ', may be absent'))),
      element('dd', {}, words(about), inner && element('details', {}, element('summary', {}, 'its fields'), inner)),
    ];
  }));
}

const pretty = (value) => (typeof value === 'string' ? value : JSON.stringify(value, null, 2));
const exampleOf = (content) => content.example ?? Object.values(content.examples ?? {})[0]?.value;

function contents(content = {}) {
  return Object.entries(content).map(([kind, one]) => [
    element('p', {}, element('code', {}, kind), ' ', element('span', { class: 'soft' }, typeName(one.schema))),
    fields(one.schema),
    exampleOf(one) === undefined ? null : element('pre', { tabindex: '0' }, pretty(exampleOf(one))),
  ]);
}

/** One answer: closed, but for success. */
function answer([status, given]) {
  const { description: about, content, headers } = resolved(given);
  const kind = status < 300 ? 'good' : status < 500 ? 'warn' : 'bad';
  return element('details', { class: 'answer' },
    element('summary', {}, element('strong', { class: kind }, status), ' ', words(about)),
    headers && element('p', { class: 'soft' }, `Headers: ${Object.keys(headers).join(', ')}`), contents(content));
}

/** Text in single quotes for a shell. */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curl(method, address, body) {
  const token = authorization().authorization ? ' -H "Authorization: Bearer $TOKEN"' : '';
  const data = body ? ` -H 'content-type: application/json' -d ${quoted(body)}` : '';
  return `curl -s${method === 'GET' ? '' : ` -X ${method}`}${token}${data} ${quoted(address)}`;
}

/** A form that asks the controller. */
function trial(method, path, operation) {
  const inputs = new Map((operation.parameters ?? []).map((parameter) => {
    const { schema, name } = parameter;
    const choices = schema.type === 'boolean' ? ['true', 'false'] : schema.enum;
    const input = choices
      ? element('select', {}, element('option', { value: '' }, '–'), choices.map((word) => element('option', {}, word)))
      : element('input', { type: 'text', placeholder: String(parameter.example ?? '') });
    if (parameter.in === 'path') input.value = parameter.example ?? '';
    return [parameter, element('label', {}, `${name}${parameter.required ? '' : ' (optional)'}`, input)];
  }));
  const json = operation.requestBody?.content['application/json'];
  const body = json && element('textarea', { spellcheck: 'false' }, pretty(exampleOf(json)));
  const line = element('pre', { tabindex: '0', 'aria-label': 'The same for curl' });
  const outcome = element('div', { 'aria-live': 'polite' });
  const address = () => {
    const query = new URLSearchParams();
    let at = path;
    for (const [{ name, in: where }, label] of inputs) {
      const value = label.lastElementChild.value;
      if (where === 'path') at = at.replace(`{${name}}`, encodeURIComponent(value));
      else if (value !== '') query.set(name, value);
    }
    // Relative, so that it also works behind a proxy's prefix.
    return new URL(at.slice(1) + (query.size ? `?${query}` : ''), new URL('.', location.href));
  };
  const show = () => { line.textContent = curl(method, address().href, body?.value); };
  const changes = operation.security?.some((one) => one.token?.includes('admin'));
  const form = element('form', {
    oninput: show,
    onsubmit: async (event) => {
      event.preventDefault();
      show();
      outcome.replaceChildren(element('p', { class: 'soft' }, 'asking'));
      try {
        outcome.replaceChildren(...await send(method, address(), body?.value));
      } catch (error) {
        outcome.replaceChildren(problem(error));
      }
    },
  }, [...inputs.values()], body && element('label', { class: 'wide' }, 'Body', body),
  element('button', { class: 'primary' }, changes ? 'Send: this acts on the fleet or the process' : 'Send'));
  show();
  return element('details', { class: 'trial' }, element('summary', {}, 'Try it'), form, line, outcome);
}

async function send(method, address, body) {
  const response = await fetch(address, {
    method, body, headers: { ...authorization(), ...(body ? { 'content-type': 'application/json' } : {}) },
  });
  if ((response.status === 401 || response.status === 403) && await another(response)) return send(method, address, body);
  const text = await response.text();
  let shown = text;
  try { shown = pretty(JSON.parse(text)); } catch { /* not JSON: as it is */ }
  return [
    element('p', {}, element('strong', { class: response.ok ? 'good' : 'bad' }, `${response.status} ${response.statusText}`), ' ', response.headers.get('content-type') ?? ''),
    element('pre', { tabindex: '0' }, shown.length > 20000 ? `${shown.slice(0, 20000)}\n… ${shown.length} characters` : shown),
  ];
}

function role(security = []) {
  const wanted = security.find((one) => one.token)?.token[0];
  return wanted ? `${wanted} token, where tokens are configured` : 'open to everybody';
}

function card(path, method, operation) {
  const streams = operation.responses['200']?.content?.['text/event-stream'];
  return element('section', { class: 'card operation', id: operation.operationId, 'aria-label': operation.summary },
    element('h3', {}, element('code', {}, `${method} ${path}`), ' ', operation.summary),
    element('p', { class: 'soft' }, role(operation.security)),
    operation.description && element('p', {}, words(operation.description)),
    operation.parameters && [element('h4', {}, 'Parameters'), element('dl', { class: 'fields' }, operation.parameters.map((one) => [
      element('dt', {}, element('code', {}, one.name), ' ', element('span', { class: 'soft' }, `in the ${one.in}, ${typeName(one.schema)}${one.schema.default === undefined ? '' : `, ${one.schema.default} if absent`}`)),
      element('dd', {}, words(one.description)),
    ]))],
    operation.requestBody && [element('h4', {}, 'Body'), contents(operation.requestBody.content)],
    element('h4', {}, 'Answers'), Object.entries(operation.responses).map(answer),
    streams ? null : trial(method, path, operation));
}

function draw() {
  const tags = new Map();
  for (const [path, item] of Object.entries(description.paths)) {
    for (const [method, operation] of Object.entries(item)) {
      const [tag] = operation.tags;
      if (!tags.has(tag)) tags.set(tag, []);
      tags.get(tag).push([path, method.toUpperCase(), operation]);
    }
  }
  const order = ['Lookup', 'Commands', 'Fleet', 'Process', 'Page'].filter((tag) => tags.has(tag));
  main.replaceChildren(
    element('h1', {}, `HTTP endpoints of ${description.info.title} ${description.info.version}`),
    ...description.info.description.split('\n\n').map((text) => element('p', {}, words(text))),
    element('nav', { class: 'contents', 'aria-label': 'Endpoints' }, order.map((tag) => element('p', {}, element('strong', {}, tag), ' ',
      tags.get(tag).map(([path, method, operation]) => [element('a', { href: `#${operation.operationId}` }, `${method} ${path}`), ' '])))),
    ...order.flatMap((tag) => [element('h2', {}, tag), ...tags.get(tag).map((one) => card(...one))]),
  );
  document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

menu('./');

try {
  description = await ask('openapi.json');
  draw();
} catch (error) {
  main.replaceChildren(problem(error));
}
