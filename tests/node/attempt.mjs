// One attempt of a task by this instance: receive, hold, append under the hold, ack last.
import { expectation, fold, parseSubject } from "./history.mjs";
import { append, delivered, freshId, load, readAll, sleep, store, storedOf } from "./ledger.mjs";

const MAX_CRASHES = 2;
const CLOCK_TOLERANCE_MS = 1000;

/** The task is another's now, or has ended: stop, and touch the delivery no more. */
export class Lost extends Error {}

/** The task is being cancelled: end it so. */
class Cancelled extends Error {}

export class Attempt {
  constructor(nc, js, message, instance, agent) {
    Object.assign(this, { nc, js, message, instance, agent });
    this.stored = storedOf(message);
    Object.assign(this, parseSubject(this.stored.subject));
    this.scope = `sg.task.${this.capability}.${this.owner}.${this.task}.>`;
    this.hold = this.last = this.lastValid = this.stored.sequence;
    this.started = new Date().toISOString();
    this.stop = new AbortController();
    this.lost = false;
  }

  shown() {
    const { task, owner, capability, started: since } = this;
    return { task, owner, capability, since, ack: this.message.reply };
  }

  inProgress() {
    if (!this.lost) this.message.respond("+WPI");
  }

  async history() {
    return fold(this.scope, await readAll(this.nc, "SG_LEDGER", this.scope));
  }

  /** A newer delivery of the dispatch that runs here: go on with it. */
  again(newer) {
    if (newer.stored.sequence === this.stored.sequence) this.message = newer.message;
  }

  /** The dispatch to run, or null where there is nothing to run. */
  async receive(suspected) {
    const { deliveries } = delivered(this.message);
    const fresh = Math.abs(Date.now() - this.stored.timeMs) <= CLOCK_TOLERANCE_MS;
    this.dispatched = JSON.parse(this.stored.data);
    this.failures = this.dispatched.status.failures ?? 0;
    const proven = expectation(this.stored.headers, this.scope) !== null;
    if (deliveries > 1 || !fresh || !proven || suspected) {
      const history = await this.history();
      if (history.liveDispatch !== this.stored.sequence) return this.#ack();
      Object.assign(this, { hold: history.hold, last: history.last, lastValid: history.lastValid });
      this.failures = history.failures;
      if ((deliveries > 1 || history.holder) && !(await this.#takeOver(history))) return null;
      if (history.cancelling) return this.#end(history.cancelling.reason);
    }
    if (Date.parse(this.dispatched.deadline) <= Date.now()) {
      const message = "the deadline passed before the attempt began";
      await this.failed({ error_class: "timeout", code: "SG1515", message });
      return null;
    }
    return this.dispatched;
  }

  /** Become the holder: from here on every append of the former one is void. */
  async #takeOver(history) {
    const how = await this.#how(history);
    const body = {
      ...this.#common("held"),
      deliveries: delivered(this.message).deliveries,
      how,
      ...(history.holder && { former: history.holder }),
    };
    const answer = await this.#send("taken-over", body);
    if (answer.refused) {
      const now = await this.history();
      if (now.landed(body.id) === 0 || now.hold !== now.landed(body.id)) throw this.#gone();
      answer.sequence = now.hold;
    }
    this.hold = this.last = this.lastValid = answer.sequence;
    if (history.crashes + (how === "crash" ? 1 : 0) <= MAX_CRASHES) return true;
    if (history.cancelling) await this.#end(history.cancelling.reason);
    else {
      const message = "it crashes its agents";
      await this.failed({ error_class: "crash-loop", code: "SG1512", message });
    }
    return false;
  }

  async #how(history) {
    if (history.position === "loose") return "released";
    const query = JSON.stringify({ task: this.task });
    const answer = await this.nc
      .request(`sg.api.holder.${this.agent}`, query, { timeout: 1000 })
      .then((message) => message.json().instance ?? "")
      .catch(() => "");
    return answer !== "" && answer !== this.instance ? "alive" : "crash";
  }

  async input() {
    return JSON.parse(await load(this.nc, this.dispatched.input, this.dispatched.input_blob));
  }

  /** Work that can be cancelled. */
  async sleep(seconds) {
    const stopped = new Promise((done) => this.stop.signal.addEventListener("abort", done));
    await Promise.race([sleep(seconds * 1000), stopped]);
  }

  /** Somebody says that the task is being cancelled: the ledger knows. */
  async cancelled() {
    const history = await this.history();
    if (history.cancelling && history.hold === this.hold && !history.ended) {
      this.last = history.last;
      this.lastValid = history.lastValid;
      this.reason = history.cancelling.reason;
      this.stop.abort();
    }
  }

  async completed(output) {
    const { inline, blob } = await store(this.js, JSON.stringify(output));
    const body = { output: inline, ...(blob && { output_blob: blob }) };
    await this.#settle("completed", "completed", body);
  }

  async failed(error) {
    this.failures += 1;
    await this.#settle("attempt-failed", "failed", { error });
  }

  /** Append the attempt's last entry, then wake who waits for the end, then ack. */
  async #settle(event, state, fields) {
    try {
      if (this.stop.signal.aborted) throw new Cancelled(this.reason);
      await this.#append(event, state, fields);
    } catch (error) {
      if (!(error instanceof Cancelled)) throw error;
      return this.#end(error.message);
    }
    if (event === "completed") await this.#wake();
    return this.#ack();
  }

  async #end(reason) {
    if (reason === "deadline") await this.#append("expired", "expired", {});
    else await this.#append("cancelled", "cancelled", { reason });
    await this.#wake();
    return this.#ack();
  }

  /** Append under the hold; after a refusal read, and decide anew. */
  async #append(event, state, fields) {
    for (;;) {
      const body = { ...this.#common(state), ...fields };
      const answer = await this.#send(event, body);
      if (!answer.refused) {
        this.last = this.lastValid = answer.sequence;
        return;
      }
      const now = await this.history();
      if (now.landed(body.id)) return;
      const mine = now.hold === this.hold && [null, this.instance].includes(now.holder);
      if (now.ended || now.remnant || !mine || now.position !== "held") throw this.#gone();
      Object.assign(this, { last: now.last, lastValid: now.lastValid });
      if (now.cancelling && !["cancelled", "expired"].includes(event)) {
        throw new Cancelled(now.cancelling.reason);
      }
    }
  }

  #send(event, body) {
    const subject = `sg.task.${this.capability}.${this.owner}.${this.task}.${event}`;
    return append(this.js, subject, body, { scope: this.scope, expect: this.last });
  }

  #common(state) {
    const { attempt, status, trace } = this.dispatched;
    return {
      v: 1,
      id: freshId(),
      task: this.task,
      time: new Date().toISOString(),
      writer: this.instance,
      prev: this.lastValid,
      ...(trace && { trace }),
      hold: this.hold,
      attempt,
      started: this.started,
      status: { state, submitted_at: status.submitted_at, attempt, failures: this.failures },
    };
  }

  /** Who may wait for this task's end: its parent, and the task that comes after it. */
  async #wake() {
    const { parent, then } = this.dispatched;
    const due = (capability, task, kind) =>
      this.js.publish(`sg.due.${capability}.${this.owner}.${task}.${kind}`, "{}");
    if (parent) await due(parent.capability, parent.task, "child");
    if (then) await due(this.capability, then, "turn");
  }

  #ack() {
    this.message.respond("+ACK");
    return null;
  }

  #gone() {
    this.lost = true;
    return new Lost(`task ${this.task} is another's`);
  }
}
