// Check AsyncAPI documents with the reference parser: one line of JSON for each path given.
import { Parser, fromFile } from "@asyncapi/parser";

const parser = new Parser();
for (const path of process.argv.slice(2)) {
  const { document, diagnostics } = await fromFile(parser, path).parse();
  const found = (level) =>
    diagnostics
      .filter(({ severity }) => severity === level)
      .map(({ message, path: at }) => `${at.join("/")}: ${message}`);
  const said = { path, errors: found(0), warnings: found(1) };
  if (document !== undefined) {
    said.channels = document.channels().length;
    said.operations = document.operations().length;
  }
  console.log(JSON.stringify(said));
}
