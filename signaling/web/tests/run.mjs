// Compiles library and tests with the project's own compiler, runs them, and ends with `N passed, N failed`.

import { execFileSync } from "node:child_process";
import { readdirSync, rmSync, writeFileSync } from "node:fs";
import { run } from "node:test";
import { spec } from "node:test/reporters";
import { fileURLToPath } from "node:url";

const web = fileURLToPath(new URL("..", import.meta.url));
const out = `${web}node_modules/.cache/carillon-tests/`;

rmSync(out, { recursive: true, force: true });
execFileSync(`${web}node_modules/.bin/tsc`, ["-p", `${web}tsconfig.test.json`], { stdio: "inherit" });
writeFileSync(`${out}package.json`, '{ "type": "module" }');

const files = readdirSync(`${out}tests`).filter((name) => name.endsWith(".test.js"));
const counts = { passed: 0, failed: 0 };
const stream = run({ files: files.map((name) => `${out}tests/${name}`), concurrency: 1 });
// A file or a `describe` reports itself as a test, too.
const isTest = (data) => data.details?.type !== "suite" && !data.name.endsWith(".test.js");
stream.on("test:pass", (data) => (counts.passed += isTest(data) ? 1 : 0));
stream.on("test:fail", (data) => (counts.failed += data.details?.type === "suite" ? 0 : 1));
stream.compose(new spec()).pipe(process.stdout);
stream.on("end", () => {
  process.exitCode = counts.failed > 0 || counts.passed === 0 ? 1 : 0;
  process.once("exit", () => console.log(`${counts.passed} passed, ${counts.failed} failed`));
});
