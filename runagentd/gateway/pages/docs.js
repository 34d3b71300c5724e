// The documentation page: /openapi.json for people, with a form to try each entrypoint.
// What agents wrote gets into the page as text only (textContent), never as markup.

const SHOWN_MAX = 500; // chunks of a stream that are kept on the page
const at = (id) => document.getElementById(id);
const main = at("main");
let token = "";
let ids = 0;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children); // a string becomes a text node
  return made;
}

// ---- who is there, and what they may call

at("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  clear();
  if (!/^[\x21-\x7e]+$/.test(token)) return complain("This is no token: one is letters, digits and signs, without spaces.", 401);
  complain("");
  main.setAttribute("aria-busy", "true");
  main.append(element("p", { class: "dim" }, "Loading…"));
  try {
    const answer = await ask("openapi.json");
    const found = await answer.json();
    clear();
    if (!answer.ok) return complain(sentence(found.detail ?? found.title), answer.status, answer.headers.get("Retry-After"));
    show(found);
    await introduce();
  } catch (error) {
    clear();
    complain(`The daemon does not answer: ${error.message}.`);
  } finally {
    main.removeAttribute("aria-busy");
  }
});

function ask(path, options = {}) {
  return fetch(path, { ...options, headers: { Authorization: `Bearer ${token}`, ...options.headers } });
}

function clear() {
  main.replaceChildren();
  at("contents").hidden = at("who").hidden = true;
  document.body.classList.remove("full");
}

function complain(text, status, wait) {
  at("token-problem").textContent = wait ? `${text} Try again in ${seconds(+wait)}.` : text;
  at("token-problem").hidden = text === "";
  at("token").setAttribute("aria-invalid", String(status === 401));
  if (text) at("token").focus();
}

async function introduce() {
  const answer = await ask("v1/me");
  if (!answer.ok) return;
  const me = await answer.json();
  const left = (me.limits ?? []).map((row) => `${row.left} of ${row.quota} left (${row.name})`);
  const until = new Date(me.expires ?? NaN);
  const ends = Number.isNaN(until.valueOf()) ? [] : [`until ${until.toLocaleString()}`];
  at("who").textContent = [`You are ${me.subject}`, ...ends, ...left].join(" · ");
  at("who").hidden = false;
}

function show(found) {
  const agents = new Map();
  for (const [path, { post }] of Object.entries(found.paths)) {
    if (!post?.tags) continue;
    const agent = path.split("/")[3]; // its id: names can be the same
    if (!agents.has(agent)) agents.set(agent, []);
    agents.get(agent).push([path, post]);
  }
  if (agents.size === 0) {
    main.append(element("p", {}, "This token may call nothing here. Its scopes name the agents that it may call; an operator can make another one."));
    return;
  }
  const contents = element("details", { open: "" }, element("summary", {}, "Contents"));
  for (const operations of agents.values()) {
    const name = operations[0][1].tags[0];
    const about = found.tags?.find((tag) => tag.name === name)?.description;
    main.append(element("h2", {}, name));
    if (about) main.append(element("p", { class: "text" }, about));
    const list = element("ul");
    for (const [path, operation] of operations) {
      const [id, title] = [`entry-${ids++}`, operation.summary.slice(name.length + 2)];
      main.append(card(id, title, path, operation, found));
      list.append(element("li", {}, element("a", { href: `#${id}`, class: "mono" }, title)));
    }
    contents.append(element("b", {}, name), list);
  }
  at("contents").replaceChildren(contents);
  at("contents").hidden = false;
  contents.open = matchMedia("(min-width: 64rem)").matches;
  document.body.classList.add("full");
}

// ---- one entrypoint

function card(id, title, path, operation, found) {
  const schema = operation.requestBody.content["application/json"].schema;
  const answers = operation.responses["200"].content;
  const streams = !("application/json" in answers);
  const cache = operation["x-runagentd-cache"];
  const heading = element("div", { class: "title" }, element("h3", { id }, title));
  if (streams) heading.append(element("span", { class: "badge" }, "stream"));
  if (cache) heading.append(element("span", { class: "badge" }, `answers kept for ${seconds(cache.ttl)}`));
  const made = element("section", { class: "card", "aria-labelledby": id }, heading);
  made.append(element("p", { class: "dim text mono" }, `POST ${path}`));
  if (operation.description) made.append(element("p", { class: "text" }, operation.description));
  made.append(element("h4", {}, "Arguments"), ...parameters(schema));
  made.append(element("h4", {}, "Result"), element("p", {}, streams ? "A stream of events, one for each value." : words(answers["application/json"].schema)));
  made.append(element("h4", {}, "Limits"), limits(operation["x-runagentd-limits"]));
  if (cache) made.append(element("h4", {}, "Kept answers"), element("p", {}, kept(cache)));
  made.append(errors(operation, found), attempt(title, path, schema, streams));
  return made;
}

function parameters(schema) {
  const found = Object.entries(schema.properties ?? {});
  const notes = schema.description ? [element("p", { class: "dim text" }, sentence(schema.description))] : [];
  if (schema.additionalProperties === true) notes.push(element("p", { class: "dim" }, "Takes any other argument, too."));
  if (found.length === 0) return notes.length ? notes : [element("p", { class: "dim" }, "None.")];
  const body = element("tbody");
  for (const [name, property] of found) {
    const required = (schema.required ?? []).includes(name);
    const more = required ? "required" : "default" in property ? `default ${JSON.stringify(property.default)}` : "optional";
    body.append(element("tr", {}, element("th", { scope: "row", class: "mono" }, name), element("td", {}, words(property)), element("td", { class: "dim" }, more)));
  }
  const head = element("tr", {}, ...["Name", "Type", "If left out"].map((title) => element("th", { scope: "col" }, title)));
  return [element("table", { class: "arguments" }, element("thead", {}, head), body), ...notes];
}

function words(schema) {
  const python = schema["x-runagentd-type"];
  const known = shape(schema);
  if (known === "any value" && python) return python; // a type that JSON Schema has no word for
  return known === "array" && python ? `array (${python})` : known;
}

function shape(schema) {
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.anyOf) return schema.anyOf.map(shape).join(" or ");
  if (schema.prefixItems) return `array of exactly ${schema.prefixItems.map(shape).join(", ")}`;
  if (schema.type === "array") return Object.keys(schema.items ?? {}).length ? `array of ${shape(schema.items)}` : "array";
  if (schema.type === "object" && Object.keys(schema.additionalProperties ?? {}).length) return `object with values of ${shape(schema.additionalProperties)}`;
  if (schema.type === undefined) return "any value";
  return [schema.type].flat().join(" or ") + (schema.format ? ` (${schema.format})` : "");
}

const WHOSE = { address: "Each address", principal: "You", tenant: "Your tenant", agent: "This agent, for all callers", tag: "This entrypoint, for all callers" };

function limits(bounds) {
  const list = element("ul");
  const say = (text) => list.append(element("li", {}, text));
  say(`${bounds.concurrency} at one time, ${bounds.queue} more may wait, each for up to ${seconds(bounds.deadline_seconds)}`);
  say(`arguments up to ${size(bounds.request_bytes)}, results up to ${size(bounds.result_bytes)}`);
  for (const rule of bounds.rules ?? []) {
    const parts = [];
    if (rule.count) parts.push(`${rule.count} in ${seconds(rule.seconds)}, ${rule.burst} at once`);
    if (rule.concurrency) parts.push(`${rule.concurrency} at one time`);
    if (rule.daily) parts.push(`${rule.daily} a day`);
    say(`${WHOSE[rule.for] ?? rule.for}: ${parts.join("; ")}`);
  }
  return list;
}

function kept(cache) {
  const whom = { private: "for each caller alone", tenant: "for all callers of a tenant", public: "for all callers" }[cache.scope] ?? cache.scope;
  const stale = cache.stale_while_revalidate ? `, and given for ${seconds(cache.stale_while_revalidate)} more while a new one is made` : "";
  return `The answer to the same arguments is kept for ${seconds(cache.ttl)}, ${whom}${stale}.`;
}

function errors(operation, found) {
  const body = element("tbody");
  for (const status of Object.keys(operation.responses)) {
    const response = found.components.responses[status];
    if (!response) continue;
    const reasons = response.description.split("\n").map((reason) => element("div", {}, reason));
    body.append(element("tr", {}, element("th", { scope: "row" }, status), element("td", {}, ...reasons)));
  }
  const sure = "Each is application/problem+json (RFC 9457); its code is for programs.";
  return element("details", {}, element("summary", {}, "What can go wrong"), element("p", { class: "dim" }, sure), element("table", { class: "errors" }, body));
}

function seconds(count) {
  if (count === 1) return "1 second";
  for (const [unit, length] of [["h", 3600], ["min", 60]]) if (count >= length && count % length === 0) return `${count / length} ${unit}`;
  return `${count} s`;
}

function size(bytes) {
  for (const [unit, length] of [["MiB", 1024 ** 2], ["KiB", 1024]]) if (bytes >= length) return `${+(bytes / length).toFixed(1)} ${unit}`;
  return `${bytes} bytes`;
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

// ---- trying it

function attempt(title, path, schema, streams) {
  const form = element("form", { "aria-label": `Try ${title}`, novalidate: "" });
  const fields = Object.entries(schema.properties ?? {}).map(([name, property]) => field(name, property, (schema.required ?? []).includes(name)));
  if (schema.properties === undefined || schema.additionalProperties === true) {
    fields.push(field(null, { type: "object" }, false));
  }
  const send = element("button", {}, "Send");
  const stop = element("button", { type: "button", class: "second", disabled: "" }, "Stop");
  const answer = element("div", { class: "answer", "aria-live": "polite" });
  form.append(...fields.map((one) => one.box), element("div", { class: "row" }, send, stop), answer);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    answer.replaceChildren();
    const body = collect(fields);
    if (body === undefined) return;
    const abort = new AbortController();
    stop.onclick = () => abort.abort();
    [send.disabled, stop.disabled] = [true, false];
    const status = element("p", { class: "status" }, "Waiting for the answer…");
    answer.append(status);
    try {
      await call(path, body, streams, answer, status, fields, abort.signal);
    } catch (error) {
      status.className = "status problem";
      status.textContent = abort.signal.aborted ? "Stopped by you" : `Cut off: ${error.message}`;
      // Chromium drops what it has not given on when a connection is cut, also the event that says why.
      if (error instanceof TypeError && !abort.signal.aborted) status.textContent += "; the daemon’s log has the reason";
    }
    [send.disabled, stop.disabled] = [false, true];
    if (document.activeElement === document.body) send.focus(); // a button that is disabled loses the focus
  });
  return element("details", {}, element("summary", {}, "Try it"), form);
}

// A control, how to read it, and where to complain. `name` is null for arguments that have none.
function field(name, property, required) {
  const id = `field-${ids++}`;
  const plain = optional(property);
  const isText = plain.type === "string" && !plain.enum;
  let control;
  if (plain.enum || plain.type === "boolean") {
    control = element("select");
    if (!required) control.append(element("option", { value: "" }, "default" in property ? `(default: ${JSON.stringify(property.default)})` : "(left out)"));
    for (const value of plain.enum ?? [true, false]) control.append(element("option", { value: JSON.stringify(value) }, String(value)));
  } else if (plain.type === "integer" || plain.type === "number") {
    control = element("input", { inputmode: "decimal", autocomplete: "off" });
  } else {
    control = element("textarea", { rows: isText ? 1 : 2, spellcheck: isText, class: isText ? "" : "mono" });
    if (!isText) control.placeholder = plain.type === "array" ? "[…]" : plain.type === "object" ? "{…}" : "JSON";
  }
  if ("default" in property && control.localName !== "select") control.placeholder = JSON.stringify(property.default);
  control.id = id;
  control.setAttribute("aria-describedby", `${id}-problem`);
  if (required) control.required = true; // said by screen readers; the daemon is asked whatever is missing
  const kind = name === null ? "a JSON object" : words(property) + (required ? ", required" : "");
  const label = element("label", { for: id }, name ?? "More arguments", " ", element("span", { class: "kind" }, kind));
  const problem = element("p", { id: `${id}-problem`, class: "problem", hidden: "" });
  const read = () => {
    if (control.value === "") return isText && required ? '""' : undefined;
    return isText ? JSON.stringify(control.value) : checked(control.value, plain.type);
  };
  return { name, control, read, problem, box: element("div", { class: "field" }, label, control, problem) };
}

// "str or nothing" is filled in like "str": an empty field is left out.
function optional(schema) {
  const rest = schema.anyOf?.filter((inner) => inner.type !== "null");
  return rest?.length === 1 ? rest[0] : schema;
}

const EXAMPLES = { integer: "a whole number", number: "a number", array: 'JSON, like ["a", "b"]', object: 'JSON, like {"a": 1}' };

// JSON as it was written, since a number of JavaScript does not hold every digit.
function checked(text, type) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error(`Write ${EXAMPLES[type] ?? "JSON; text goes in quotes"}.`);
  }
  if (type === "object" && (value === null || typeof value !== "object" || Array.isArray(value))) throw new Error(`Write ${EXAMPLES.object}.`);
  return text.trim();
}

// The text of the body; undefined where a field cannot be read, and says so.
function collect(fields) {
  const members = [];
  let first;
  for (const one of fields) {
    mark(one, "");
    try {
      const value = one.read();
      if (one.name !== null && value !== undefined) members.push(`${JSON.stringify(one.name)}: ${value}`);
      else if (value !== undefined && !/^\{\s*\}$/.test(value)) members.push(value.slice(1, -1));
    } catch (error) {
      mark(one, error.message);
      first ??= one;
    }
  }
  first?.control.focus();
  return first ? undefined : `{${members.join(", ")}}`;
}

function mark(one, text) {
  one.problem.textContent = text;
  one.problem.hidden = text === "";
  one.control.setAttribute("aria-invalid", String(text !== ""));
}

async function call(path, body, streams, answer, status, fields, signal) {
  const began = performance.now();
  const headers = { "Content-Type": "application/json", ...(streams ? { Accept: "text/event-stream" } : {}) };
  const got = await ask(path.slice(1), { method: "POST", headers, body, signal });
  const took = () => `${Math.max(1, Math.round(performance.now() - began))} ms`;
  const cached = got.headers.get("Cache-Status");
  const said = ["X-Request-ID", "Cache-Status", "Age", "RateLimit", "Retry-After"].filter((name) => got.headers.has(name)).map((name) => `${name}: ${got.headers.get(name)}`);
  if (said.length) answer.append(element("p", { class: "dim text" }, said.join("\n")));
  const output = element("pre", { tabindex: "0", "aria-label": "Answer" });
  answer.append(output);
  if ((got.headers.get("Content-Type") ?? "").startsWith("text/event-stream")) {
    await follow(got.body, output, status, took);
    return;
  }
  const text = await got.text();
  const kept = cached?.includes("; hit") ? ", a kept answer" : "";
  status.textContent = got.ok ? `${got.status}, after ${took()}${kept}` : `${got.status}`;
  status.className = `status ${got.ok ? "ok" : "problem"}`;
  output.textContent = pretty(text);
  if (!got.ok) explain(text, status, fields);
}

// A problem (RFC 9457): its sentence in the status, and at the argument that it is about.
function explain(text, status, fields) {
  try {
    const problem = JSON.parse(text);
    status.textContent += `: ${problem.detail ?? problem.title}`;
    for (const { pointer, detail } of problem.errors ?? []) {
      const [name, ...inside] = pointer.split("/").slice(1).map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
      const one = fields.find((candidate) => candidate.name === name);
      if (!one) continue;
      mark(one, sentence(inside.length ? `${inside.join(", ")}: ${detail}` : detail));
      one.control.focus();
    }
  } catch {
    // no JSON: it is shown as it is
  }
}

// Laid out for reading only where that changes no digit: 1.0 and large numbers would.
function pretty(text) {
  try {
    const value = JSON.parse(text);
    return JSON.stringify(value) === text ? JSON.stringify(value, null, 2) : text;
  } catch {
    return text;
  }
}

// Server-sent events, as far as the daemon uses them (WHATWG HTML, section 9.2).
async function follow(body, output, status, took) {
  // No pipe through a TextDecoderStream: that drops what it holds when the connection is cut, the error event with it.
  const [reader, decoder] = [body.getReader(), new TextDecoder()];
  let [count, rest, failure, complete] = [0, "", "", false];
  status.textContent = "Receiving…";
  try {
    for (let got = await reader.read(); !got.done; got = await reader.read()) {
      const events = (rest + decoder.decode(got.value, { stream: true })).split("\n\n");
      rest = events.pop();
      const stays = output.scrollTop + output.clientHeight >= output.scrollHeight - 4;
      for (const event of events) {
        const fields = Object.fromEntries(event.split("\n").map((line) => line.split(/: ?(.*)/s, 2)));
        if (fields.event === "chunk") {
          output.append(element("div", {}, fields.data));
          if (++count > SHOWN_MAX) output.firstChild.remove();
        } else if (fields.event === "error") failure = JSON.parse(fields.data).detail;
        else if (fields.event === "done") complete = true;
      }
      const left = count > SHOWN_MAX ? `, the last ${SHOWN_MAX} are shown` : "";
      status.textContent = `${complete ? "200, complete" : "Receiving…"} after ${took()}: ${count} ${count === 1 ? "value" : "values"}${left}`;
      if (stays) output.scrollTop = output.scrollHeight;
    }
  } catch (error) {
    throw failure ? new Error(failure) : error; // the daemon cuts a stream short after its error
  }
  if (!complete) throw new Error(failure || "the connection was closed");
  status.className = "status ok";
}
