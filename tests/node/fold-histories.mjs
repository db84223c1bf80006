// Run the published histories through this folder's fold: one line for each disagreement.
import { readFileSync } from "node:fs";
import { History } from "./history.mjs";

const published = JSON.parse(
  readFileSync(new URL("../../schemas/histories.json", import.meta.url), "utf8"),
);
for (const { name, entries, then } of published.cases) {
  const history = new History(published.scope);
  for (const entry of entries) {
    const reason = history.add(entry);
    if ((reason === "") !== entry.counts) {
      console.log(`${name}: entry ${entry.sequence} counts: ${reason === ""} (${reason})`);
    }
  }
  const { state, last, remnant, hold, holder, liveDispatch: live_dispatch } = history;
  const told = { state, last, remnant, hold, holder, live_dispatch };
  for (const [key, value] of Object.entries(then)) {
    if (told[key] !== value) console.log(`${name}: ${key} is ${told[key]}, not ${value}`);
  }
}
console.log(`${published.cases.length} histories`);
