// What the entries of one task say: validity and states as in docs/reference/protocol.md.
// Pure; bodies are checked against schemas/. schemas/histories.json tests it.
import { readFileSync } from "node:fs";
import addFormats from "ajv-formats";
import Ajv from "ajv/dist/2020.js";

const SCHEMAS = new URL("../../schemas/", import.meta.url);
const EXPECTED = "Nats-Expected-Last-Subject-Sequence";
const EXPECTED_SCOPE = "Nats-Expected-Last-Subject-Sequence-Subject";
const TERMINAL = new Set(["rejected", "completed", "dead", "cancelled", "expired"]);
const MAX_ENTRY = 512 * 1024;
const TOKEN = "[A-Za-z0-9_-]{1,64}";
const SUBJECT = new RegExp(
  `^sg\\.task\\.(${TOKEN})\\.(${TOKEN})\\.(${TOKEN})\\.` +
    `(?:(dispatched)\\.(${TOKEN})\\.(high|normal|low)|([a-z-]+))$`,
);

const ajv = new Ajv({ strict: false });
addFormats(ajv);
const validators = new Map();

/** Whether a value fits the published schema of this message. */
export function fits(message, value) {
  if (!validators.has(message)) {
    const schema = readFileSync(new URL(`${message}.json`, SCHEMAS), "utf8");
    validators.set(message, ajv.compile(JSON.parse(schema)));
  }
  return validators.get(message)(value);
}

/** Capability, owner, task, event, pool and priority of a ledger subject; null for any other. */
export function parseSubject(subject) {
  const match = SUBJECT.exec(subject);
  if (match === null) return null;
  const [, capability, owner, task, dispatched, pool, priority, event] = match;
  return { capability, owner, task, event: dispatched ?? event, pool, priority };
}

/** The sequence that an entry's headers prove it expected; null where they prove nothing. */
export function expectation(headers, scope) {
  const name = EXPECTED.toLowerCase();
  if (headers.toLowerCase().split(name).length !== 3) return null; // twice in all
  let number = null;
  let subject = null;
  for (const line of headers.split("\r\n")) {
    if (!line.toLowerCase().startsWith(name)) continue;
    const colon = line.indexOf(":");
    const value = line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (line.slice(0, colon) === EXPECTED) number = value;
    else if (line.slice(0, colon) === EXPECTED_SCOPE) subject = value;
    else return null;
  }
  if (subject !== scope || !/^(0|[1-9][0-9]{0,18})$/.test(number ?? "")) return null;
  return Number(number);
}

const OPEN = [
  ...["signalled client", "cancel-requested client"],
  ...["cancelled coordinator", "expired coordinator"],
];
const REROUTED = ["dispatched coordinator", "waiting coordinator"];
const STOPPED = [...OPEN, ...REROUTED, "dead coordinator", "rejected coordinator"];
const HOLDER = ["checkpoint", "waiting", "released", "attempt-failed", "completed"];
const UNDOING = [...OPEN, "dispatched coordinator"];
const LEGAL = {
  none: ["submitted client"],
  queued: [...OPEN, ...REROUTED, "rejected coordinator"],
  held: [...OPEN, ...REROUTED, ...HOLDER.map((event) => `${event} holder`), "taken-over next"],
  loose: [...OPEN, ...REROUTED, "taken-over next"],
  failed: STOPPED,
  waiting: STOPPED,
};
const LEGAL_CANCELLING = {
  none: [],
  queued: UNDOING,
  held: [
    ...OPEN,
    ...["checkpoint", "released", "cancelled", "expired"].map((event) => `${event} holder`),
    "taken-over next",
  ],
  loose: [...OPEN, "taken-over next"],
  failed: UNDOING,
  waiting: UNDOING,
};

function roleOf(event, body) {
  if (["submitted", "signalled", "cancel-requested"].includes(event)) return "client";
  if (event === "taken-over") return "next";
  return (body.hold ?? 0) > 0 ? "holder" : "coordinator";
}

/** The fold. Add entries in ledger order: {sequence, subject, headers (the raw block), data}. */
export class History {
  constructor(scope) {
    this.scope = scope;
    this.position = "none";
    this.ended = null;
    this.end = null;
    this.cancelling = null;
    this.last = 0;
    this.lastValid = 0;
    this.hold = 0;
    this.holder = null;
    this.attempt = 0;
    this.failures = 0;
    this.crashes = 0;
    this.openUndos = new Set(); // keys
    this.remnant = false;
    this.submitted = null;
    this.dispatchedAt = 0;
    this.valid = [];
    this.voids = [];
  }

  get state() {
    return this.ended ?? (this.cancelling ? "cancelling" : this.position);
  }

  get isOpen() {
    return this.position !== "none" && this.ended === null;
  }

  get liveDispatch() {
    return this.ended === null && ["held", "loose"].includes(this.position) ? this.dispatchedAt : 0;
  }

  get undos() {
    return this.openUndos.size;
  }

  landed(id) {
    return this.valid.find(({ body }) => body?.id === id)?.sequence ?? 0;
  }

  /** Take the next entry in. Returns why it is void, or an empty text when it counts. */
  add(entry) {
    if (entry.sequence <= this.last) return "seen before";
    const reason = this.#take(entry);
    this.last = entry.sequence;
    if (reason) this.voids.push({ sequence: entry.sequence, subject: entry.subject, reason });
    return reason;
  }

  #take(entry) {
    const expected = expectation(entry.headers, this.scope);
    if (expected === null) return "its headers prove nothing";
    if (this.valid.length === 0 && expected > this.last) this.remnant = true;
    if (this.remnant) return "the scope's beginning was deleted";
    if (expected < this.lastValid) return `written before entry ${this.lastValid} was known`;
    const subject = parseSubject(entry.subject);
    if (subject === null) return "no subject of a task";
    const body = readBody(subject, entry.data);
    if (body === null) {
      if (subject.event !== "submitted" || this.position !== "none") return "it cannot be read";
      this.#count(entry, subject, null);
      return "";
    }
    const reason = this.#illegal(subject.event, body);
    if (!reason) this.#count(entry, subject, body);
    return reason;
  }

  #illegal(event, body) {
    if (this.ended) return `the task had ended as ${this.ended}`;
    const role = roleOf(event, body);
    const table = this.cancelling ? LEGAL_CANCELLING : LEGAL;
    if (!table[this.position].includes(`${event} ${role}`)) return `not allowed in ${this.state}`;
    const unreadable = this.submitted === null && this.position !== "none";
    if (unreadable && ["dispatched", "waiting"].includes(event)) return "it is only rejected";
    if (event === "dispatched") {
      if (body.attempt !== this.attempt + 1) return "attempts are counted without gaps";
      return this.cancelling && !this.undos ? "nothing is to be undone" : "";
    }
    if (role === "holder" || role === "next") return this.#notHeld(event, role, body);
    const before = ["capacity", "start", "turn"].includes(body.reason);
    if (event === "waiting" && this.position === "queued" && !before) return "nothing has run yet";
    return event === "rejected" && this.attempt > 0 ? "it was dispatched before" : "";
  }

  #notHeld(event, role, body) {
    if (body.hold !== this.hold) return `the task is held by ${this.hold}`;
    if (role === "holder" && ![null, body.writer].includes(this.holder)) {
      return `${this.holder} holds the task`;
    }
    const byDeadline = this.cancelling?.reason === "deadline";
    return event === "expired" && !byDeadline ? "no deadline cancelled it" : "";
  }

  #count(entry, { event }, body) {
    this.valid.push({ ...entry, event, body });
    this.lastValid = entry.sequence;
    if (TERMINAL.has(event)) {
      this.ended = event;
      this.end = body;
    } else if (event === "submitted") {
      this.position = "queued";
      this.submitted = body;
    } else if (event === "dispatched") {
      Object.assign(this, { position: "held", holder: null, crashes: 0, attempt: body.attempt });
      this.hold = this.dispatchedAt = entry.sequence;
    } else if (event === "cancel-requested") {
      this.cancelling ??= body;
    } else if (event === "waiting") {
      Object.assign(this, { position: "waiting", hold: 0, holder: null });
    } else if (event !== "signalled") {
      this.#agentSaid(event, entry, body);
    }
  }

  #agentSaid(event, entry, body) {
    this.holder = body.writer;
    if (event === "taken-over") {
      Object.assign(this, { position: "held", hold: entry.sequence });
      this.crashes += body.how === "crash" ? 1 : 0;
    } else if (event === "released") {
      this.position = "loose";
    } else if (event === "attempt-failed") {
      Object.assign(this, { position: "failed", hold: 0, holder: null });
      this.failures += 1;
    } else if (event === "checkpoint") {
      if (body.kind === "undo-registered") this.openUndos.add(body.key);
      if (["undo-done", "undo-dropped"].includes(body.kind)) this.openUndos.delete(body.key);
    }
  }
}

/** The body, if it is a message of this protocol that belongs to its subject; else null. */
function readBody({ event, task }, data) {
  if (Buffer.byteLength(data) > MAX_ENTRY) return null;
  try {
    const body = JSON.parse(data);
    return fits(event, body) && body.task === task ? body : null;
  } catch {
    return null;
  }
}

/** The history that these entries tell. */
export function fold(scope, entries) {
  const history = new History(scope);
  for (const entry of entries) history.add(entry);
  return history;
}
