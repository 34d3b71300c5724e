// The documentation page: /openapi.json for people, with a form to try each entrypoint.
// What agents wrote gets into the page as text only (textContent), never as markup.

let token = "";
const main = document.getElementById("main");

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

document.getElementById("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  token = document.getElementById("token").value.trim();
  main.replaceChildren(element("p", "Loading…"));
  try {
    const answer = await fetch("openapi.json", { headers: { Authorization: `Bearer ${token}` } });
    const found = await answer.json();
    if (answer.ok) show(found);
    else main.replaceChildren(element("p", `${answer.status}: ${found.detail ?? found.title}`, { class: "bad" }));
  } catch (error) {
    main.replaceChildren(element("p", `The daemon does not answer: ${error.message}`, { class: "bad" }));
  }
});

function show(found) {
  main.replaceChildren();
  const agents = new Map();
  for (const [path, methods] of Object.entries(found.paths)) {
    const operation = methods.post;
    if (!operation?.tags) continue;
    if (!agents.has(operation.tags[0])) agents.set(operation.tags[0], []);
    agents.get(operation.tags[0]).push([path, operation]);
  }
  if (agents.size === 0) main.append(element("p", "This token may call nothing here."));
  for (const [agent, operations] of agents) {
    main.append(element("h2", agent));
    for (const [path, operation] of operations) main.append(card(agent, path, operation, found));
  }
}

function card(agent, path, operation, found) {
  const made = element("section", undefined, { class: "card" });
  const schema = operation.requestBody.content["application/json"].schema;
  const streams = !("application/json" in operation.responses["200"].content);
  made.append(element("h3", operation.summary.slice(agent.length + 2)));
  made.append(element("p", `POST ${path}`, { class: "dim text" }));
  if (operation.description) made.append(element("p", operation.description, { class: "text" }));
  made.append(parameters(schema));
  made.append(element("p", `Gives ${streams ? "a stream of events" : words(operation.responses["200"].content["application/json"].schema)}.`));
  const limits = operation["x-runagentd-limits"];
  made.append(element("p", `${limits.concurrency} at one time, ${limits.queue} may wait; deadline ${limits.deadline_seconds} s; arguments up to ${size(limits.request_bytes)}, results up to ${size(limits.result_bytes)}.`, { class: "dim" }));
  const cache = operation["x-runagentd-cache"];
  if (cache) made.append(element("p", `Answers are kept for ${cache.ttl} s (${cache.scope}).`, { class: "dim" }));
  made.append(errors(operation, found), attempt(path, schema, streams));
  return made;
}

function size(bytes) {
  for (const [unit, length] of [["MiB", 1024 ** 2], ["KiB", 1024]]) if (bytes >= length) return `${+(bytes / length).toFixed(1)} ${unit}`;
  return `${bytes} bytes`;
}

function parameters(schema) {
  const properties = Object.entries(schema.properties ?? {});
  if (properties.length === 0) return element("p", schema.description ?? "No arguments.", { class: "dim" });
  const table = element("table");
  const head = element("tr");
  for (const title of ["argument", "type", "default"]) head.append(element("th", title, { scope: "col" }));
  table.append(head);
  for (const [name, property] of properties) {
    const row = element("tr");
    const needed = (schema.required ?? []).includes(name) ? ", required" : "";
    const value = "default" in property ? JSON.stringify(property.default) : "";
    for (const cell of [name, words(property) + needed, value]) row.append(element("td", cell));
    table.append(row);
  }
  return table;
}

function words(schema) {
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.anyOf) return schema.anyOf.map(words).join(" or ");
  if (schema.type === "array") return schema.items ? `array of ${words(schema.items)}` : "array";
  if (schema.type === undefined) return "any value";
  return [schema.type].flat().join(" or ") + (schema.format ? ` (${schema.format})` : "");
}

function errors(operation, found) {
  const details = element("details");
  details.append(element("summary", "What can go wrong"));
  const table = element("table");
  for (const status of Object.keys(operation.responses)) {
    const response = found.components.responses[status];
    if (!response) continue;
    const row = element("tr");
    row.append(element("td", status), element("td", response.description));
    table.append(row);
  }
  details.append(table);
  return details;
}

let fields = 0;

function attempt(path, schema, streams) {
  const details = element("details");
  details.append(element("summary", "Try it"));
  const form = element("form");
  const readers = [];
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    const [field, read] = input(name, property, (schema.required ?? []).includes(name));
    form.append(field);
    readers.push([name, read]);
  }
  const more = schema.properties === undefined || schema.additionalProperties === true;
  if (more) {
    const [field, read] = input("more arguments (a JSON object)", { type: "object" }, false);
    form.append(field);
    readers.push([null, read]);
  }
  const send = element("button", "Send");
  const cancel = element("button", "Cancel", { type: "button", class: "second", disabled: "" });
  const row = element("div", undefined, { class: "row" });
  row.append(send, cancel);
  const output = element("pre", "", { "aria-live": "polite", hidden: "" });
  form.append(row, output);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    output.hidden = false;
    output.className = "";
    let body;
    try {
      body = collect(readers);
    } catch (error) {
      output.className = "bad";
      output.textContent = error.message;
      return;
    }
    const stop = new AbortController();
    cancel.onclick = () => stop.abort();
    send.disabled = true;
    cancel.disabled = false;
    output.textContent = "…";
    try {
      await call(path, body, streams, output, stop.signal);
    } catch (error) {
      output.textContent += stop.signal.aborted ? "\n(cancelled)" : `\n(cut off: ${error.message})`;
    }
    send.disabled = false;
    cancel.disabled = true;
  });
  details.append(form);
  return details;
}

function input(name, property, required) {
  const field = element("div", undefined, { class: "field" });
  const id = `field-${fields++}`;
  const plain = property.type === "string" || property.type === "integer" || property.type === "number";
  let control;
  let read = () => (control.value === "" ? undefined : parsed(name, control.value));
  if (property.enum) {
    control = element("select");
    if (!required) control.append(element("option", "", { value: "" }));
    for (const value of property.enum) control.append(element("option", String(value), { value: JSON.stringify(value) }));
  } else if (property.type === "boolean") {
    control = element("input", undefined, { type: "checkbox" });
    control.checked = property.default === true;
    read = () => control.checked;
  } else if (property.type === "string") {
    control = element("textarea", undefined, { rows: "1" });
    read = () => (control.value === "" && !required ? undefined : control.value);
  } else if (plain) {
    control = element("input", undefined, { inputmode: "decimal" });
  } else {
    control = element("textarea", undefined, { rows: "2", placeholder: "JSON" });
  }
  if ("default" in property && property.type !== "boolean" && !property.enum) {
    control.placeholder = JSON.stringify(property.default);
  }
  control.id = id;
  field.append(element("label", required ? `${name} (required)` : name, { for: id }), control);
  return [field, read];
}

function parsed(name, text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`${name}: this is no JSON`);
  }
}

function collect(readers) {
  const found = {};
  for (const [name, read] of readers) {
    const value = read();
    if (value === undefined) continue;
    if (name === null) Object.assign(found, value);
    else found[name] = value;
  }
  return found;
}

async function call(path, body, streams, output, signal) {
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  if (streams) headers.Accept = "text/event-stream";
  const answer = await fetch(path.slice(1), { method: "POST", headers, body: JSON.stringify(body), signal });
  const shown = ["RateLimit", "Retry-After", "Cache-Status", "Age"]
    .filter((name) => answer.headers.has(name))
    .map((name) => `${name}: ${answer.headers.get(name)}\n`);
  output.className = answer.ok ? "" : "bad";
  output.textContent = `${answer.status}\n${shown.join("")}\n`;
  if (!(answer.headers.get("Content-Type") ?? "").startsWith("text/event-stream")) {
    const text = await answer.text();
    try {
      output.textContent += JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      output.textContent += text;
    }
    return;
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ; ) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.split("\n").find((line) => line.startsWith("data: "));
      if (data && event.includes("event: chunk")) output.textContent += `${data.slice(6)}\n`;
      if (data && event.includes("event: error")) output.textContent += `error: ${JSON.parse(data.slice(6)).detail}\n`;
    }
    output.scrollTop = output.scrollHeight;
  }
}
