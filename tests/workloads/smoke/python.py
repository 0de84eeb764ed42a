"""Python 3: what its standard library asks of a kernel."""
import asyncio, ctypes, faulthandler, hashlib, http.client, http.server, mmap, multiprocessing, os, secrets, select
import shutil, signal, socket, sqlite3, ssl, subprocess, sys, tempfile, threading, time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import shared_memory

faulthandler.dump_traceback_later(90, exit=True)


def square(n):
    return n * n


def digest():
    assert hashlib.sha256(b"abc").hexdigest().startswith("ba7816bf")
    assert hashlib.scrypt(b"p", salt=b"s", n=1024, r=8, p=1)
    assert len(secrets.token_bytes(32)) == 32 and len(os.urandom(16)) == 16


def database(d):
    db = sqlite3.connect(os.path.join(d, "x.db"))
    db.execute("pragma journal_mode=wal")
    with db:
        db.execute("create table t (n integer primary key, s text)")
        db.executemany("insert into t (s) values (?)", ((str(i),) for i in range(5000)))
    assert db.execute("select sum(n) from t").fetchone() == (12502500,)
    db.close()


def children():
    out = subprocess.run(["sort", "-r"], input=b"a\nb\n", stdout=subprocess.PIPE, check=True, start_new_session=True)
    assert out.stdout == b"b\na\n"
    try:
        subprocess.run(["sleep", "30"], timeout=0.2)
        raise AssertionError("no timeout")
    except subprocess.TimeoutExpired:
        pass
    pid = os.posix_spawn("/bin/true", ["true"], os.environ)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    fd = os.pidfd_open(pid)
    select.select([fd], [], [], 10)
    assert os.waitid(os.P_PIDFD, fd, os.WEXITED).si_status == 3


def threads():
    lock, total = threading.Lock(), [0]

    def add():
        for _ in range(1000):
            with lock:
                total[0] += 1
    ts = [threading.Thread(target=add) for _ in range(16)]
    [t.start() for t in ts]
    [t.join() for t in ts]
    assert total == [16000]
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(square, range(100))) == 328350


def processes():
    # Semaphores and queues live in /dev/shm.
    for method in ("fork", "spawn"):
        ctx = multiprocessing.get_context(method)
        with ProcessPoolExecutor(2, mp_context=ctx) as pool:
            assert list(pool.map(square, range(8))) == [n * n for n in range(8)]
    with multiprocessing.Manager() as m:
        d = m.dict(a=1)
        assert d["a"] == 1
    shm = shared_memory.SharedMemory(create=True, size=1 << 20)
    shm.buf[0] = 7
    assert shm.buf[0] == 7
    shm.close()
    shm.unlink()


async def loopback():
    async def serve(r, w):
        w.write((await r.readline()).upper())
        await w.drain()
        w.close()
    for family, host in ((socket.AF_INET, "127.0.0.1"),):
        server = await asyncio.start_server(serve, host, 0, family=family)
        port = server.sockets[0].getsockname()[1]

        async def ask():
            r, w = await asyncio.open_connection(host, port)
            w.write(b"hello\n")
            assert await r.readline() == b"HELLO\n"
            w.close()
        await asyncio.gather(*(ask() for _ in range(50)))
        server.close()
        await server.wait_closed()
    p = await asyncio.create_subprocess_exec("echo", "x", stdout=subprocess.PIPE)
    assert (await p.communicate())[0] == b"x\n"
    assert await asyncio.to_thread(square, 3) == 9


def tls(d):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                    "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", d + "/k", "-out", d + "/c"],
                   check=True, stderr=subprocess.DEVNULL)
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ctx.load_cert_chain(d + "/c", d + "/k")
    s = http.server.ThreadingHTTPServer(("localhost", 0), http.server.SimpleHTTPRequestHandler)
    s.socket = ctx.wrap_socket(s.socket, server_side=True)
    s.RequestHandlerClass.log_message = lambda *a: None
    threading.Thread(target=s.serve_forever, daemon=True).start()
    c = http.client.HTTPSConnection("localhost", s.server_address[1], context=ssl.create_default_context(cafile=d + "/c"))
    c.request("GET", "/")
    assert c.getresponse().status == 200
    s.shutdown()


def kernel(d):
    m = mmap.mmap(-1, 1 << 20)
    m[:5] = b"hello"
    os.mkfifo(d + "/fifo")
    fd = os.memfd_create("x")
    assert os.write(fd, b"abc") == 3 and os.lseek(fd, 0, 0) == 0
    assert os.sendfile(os.open(d + "/out", os.O_CREAT | os.O_WRONLY), fd, 0, 3) == 3
    a, b = socket.socketpair()
    socket.send_fds(a, [b"x"], [fd])
    assert len(socket.recv_fds(b, 1, 1)[1]) == 1
    hit = []
    signal.signal(signal.SIGALRM, lambda *_: hit.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    time.sleep(0.2)
    assert hit
    ep = select.epoll()
    ep.register(a, select.EPOLLIN)
    b.send(b"y")
    assert ep.poll(1)
    assert ctypes.CDLL(None).getpid() == os.getpid()  # needs executable memory for callbacks
    assert ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 5)() == 5
    os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0), os.getloadavg(), os.cpu_count()
    pid, master = __import__("pty").fork()
    if pid == 0:
        os.execlp("tty", "tty")
    assert b"/dev/pts/" in os.read(master, 100)
    os.waitpid(pid, 0)


def main():
    d = tempfile.mkdtemp()
    digest(), database(d), children(), threads(), processes(), tls(d), kernel(d)
    asyncio.run(loopback())
    shutil.rmtree(d)
    print("smoke-ok")


if __name__ == "__main__":
    main()
