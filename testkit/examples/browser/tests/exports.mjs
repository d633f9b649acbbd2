// Says what a module needs from its host, and what it offers.
import { readFile } from 'node:fs/promises';

const module = await WebAssembly.compile(await readFile(process.argv[2]));
const imports = WebAssembly.Module.imports(module).map(({ module, name }) => `${module}.${name}`);
// Two globals tell debuggers where data ends.
const exports = WebAssembly.Module.exports(module).map(({ name }) => name).filter((name) => !name.startsWith('__'));
console.log(JSON.stringify({ imports: imports.sort(), exports: exports.sort() }));
