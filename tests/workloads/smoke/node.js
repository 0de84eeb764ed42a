// Node.js: event loop, http, worker threads, children, crypto, watchers.
'use strict';
const assert = require('assert'), { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const http = require('http'), https = require('https'), cp = require('child_process'), crypto = require('crypto');
const fs = require('fs'), os = require('os'), path = require('path'), zlib = require('zlib'), { once } = require('events');
const cluster = require('cluster'), net = require('net'), dgram = require('dgram');

if (!isMainThread) {
  new Int32Array(workerData)[0]; Atomics.add(new Int32Array(workerData), 0, 5); parentPort.postMessage('done');
} else if (process.argv[2] === 'forked') {
  process.on('message', m => { process.send(m * 2); process.disconnect(); });
} else if (cluster.isWorker) {
  http.createServer((q, s) => s.end('from ' + cluster.worker.id)).listen(8081, '127.0.0.1');
} else main().then(() => { console.log('smoke-ok'); process.exit(0); }, e => { console.error(e); process.exit(1); });

async function get(url) {
  const res = (await once(http.get(url), 'response'))[0]; let s = ''; for await (const b of res) s += b; return s;
}

async function main() {
  const server = http.createServer((q, s) => s.end('hello ' + q.url)).listen(0, '127.0.0.1'); await once(server, 'listening');
  const got = await Promise.all([...Array(100).keys()].map(i => get(`http://127.0.0.1:${server.address().port}/${i}`)));
  assert(got[42] === 'hello /42'); server.close();

  const shared = new SharedArrayBuffer(4);
  await Promise.all([1, 2, 3, 4].map(() => once(new Worker(__filename, { workerData: shared }), 'exit')));
  assert(new Int32Array(shared)[0] === 20);

  assert(cp.execSync('echo hi | tr a-z A-Z').toString() === 'HI\n');
  const kid = cp.fork(__filename, ['forked']); kid.send(21); assert((await once(kid, 'message'))[0] === 42);
  const sleeper = cp.spawn('sleep', ['100']); sleeper.kill(); assert((await once(sleeper, 'exit'))[1] === 'SIGTERM');

  cluster.fork(); await once(cluster, 'listening'); assert(await get('http://127.0.0.1:8081/') === 'from 1');
  for (const w of Object.values(cluster.workers)) w.kill();

  assert(crypto.createHash('sha256').update('abc').digest('hex').startsWith('ba7816bf'));
  const { publicKey, privateKey } = crypto.generateKeyPairSync('ed25519');
  assert(crypto.verify(null, Buffer.from('x'), publicKey, crypto.sign(null, Buffer.from('x'), privateKey)));
  await new Promise((ok, bad) => crypto.scrypt('p', 's', 32, e => e ? bad(e) : ok()));

  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'n-')), file = path.join(dir, 'x');
  const seen = new Promise(ok => { const w = fs.watch(dir, () => { w.close(); ok(); }); });
  await fs.promises.writeFile(file, zlib.gzipSync('a'.repeat(1e5))); await seen;
  assert(zlib.gunzipSync(fs.readFileSync(file)).length === 1e5); await fs.promises.copyFile(file, file + '2');
  const sock = path.join(dir, 's'), u = net.createServer(c => c.end('unix')).listen(sock); await once(u, 'listening');
  let s = ''; for await (const b of net.connect(sock)) s += b; assert(s === 'unix'); u.close();
  const udp = dgram.createSocket('udp4'); udp.bind(0, '127.0.0.1'); await once(udp, 'listening');
  udp.send('x', udp.address().port, '127.0.0.1'); await once(udp, 'message'); udp.close();
  fs.rmSync(dir, { recursive: true });

  // Enough of the same for the compilers of V8 to write machine code.
  let n = 0; for (let i = 0; i < 1e7; i++) n = (n + i * 3) | 0; assert(n !== 0);
  assert((await WebAssembly.instantiate(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]))).instance);
  os.cpus(); os.networkInterfaces(); os.loadavg(); os.userInfo(); process.memoryUsage(); os.setPriority(5);
}
