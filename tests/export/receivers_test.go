package export

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// receiver is a program that takes events, and what it has of them.
type receiver struct {
	// to are the arguments of ward audit export.
	to []string
	// start starts it; it can be killed and started again.
	start func(t testing.TB) *exec.Cmd
	// events are what it has, in order, each in ward's own form.
	events func(t testing.TB) [][]byte
}

// program starts a receiver and waits until it listens.
func program(t testing.TB, addr string, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	out, err := os.OpenFile(filepath.Join(t.TempDir(), "log"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill9(cmd) })
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return cmd
		}
		if time.Now().After(end) {
			b, _ := os.ReadFile(out.Name())
			t.Fatalf("%s does not listen: %v\n%s", cmd.Path, err, b)
		}
	}
}

func kill9(cmd *exec.Cmd) {
	cmd.Process.Kill()
	cmd.Wait()
}

// freeAddr is an address that nothing listens on.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// rsyslog is Debian's rsyslogd: TLS, with certificates on both sides, and a
// queue that writes before it reads on.
func rsyslog(t testing.TB) receiver {
	t.Helper()
	bin := "/usr/sbin/rsyslogd"
	if _, err := os.Stat(bin); err != nil {
		t.Skip("needs rsyslogd")
	}
	dir, addr := t.TempDir(), freeAddr(t)
	certs := certificates(t, dir)
	out := filepath.Join(dir, "out")
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "conf")
	text := fmt.Sprintf(`global(workDirectory=%[1]q maxMessageSize="128k" defaultNetstreamDriver="gtls"
  defaultNetstreamDriverCAFile=%[2]q defaultNetstreamDriverCertFile=%[3]q defaultNetstreamDriverKeyFile=%[4]q)
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="x509/name" permittedPeer="client")
template(name="all" type="string" string="%%structured-data%% %%msg%%\n")
ruleset(name="r" queue.type="Direct") {
  action(type="omfile" file=%[5]q template="all" asyncWriting="off" flushOnTXEnd="on")
}
input(type="imtcp" address="127.0.0.1" port=%[6]q ruleset="r")
`, dir, certs.ca, certs.serverCert, certs.serverKey, out, port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return receiver{
		to: []string{"--to", "syslog+tls://" + addr, "--ca", certs.ca, "--cert", certs.clientCert, "--key", certs.clientKey},
		start: func(t testing.TB) *exec.Cmd {
			return program(t, addr, exec.Command(bin, "-n", "-f", conf, "-i", filepath.Join(dir, fmt.Sprintf("pid%d", time.Now().UnixNano()))))
		},
		events: func(t testing.TB) [][]byte {
			var list [][]byte
			for l := range bytes.Lines(read(t, out)) {
				_, msg, ok := bytes.Cut(l, []byte("] "))
				if !ok {
					t.Fatalf("not a message: %.200q", l)
				}
				list = append(list, bytes.TrimSpace(msg))
			}
			return list
		},
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// collector is OpenTelemetry's own receiver, which writes what it got before
// it answers.
func collector(t testing.TB) receiver {
	t.Helper()
	bin, addr, out := tools(t), freeAddr(t), filepath.Join(t.TempDir(), "out")
	return receiver{
		to: []string{"--to", "otlp+http://" + addr},
		start: func(t testing.TB) *exec.Cmd {
			return program(t, addr, exec.Command(filepath.Join(bin, "otlp"), addr, out))
		},
		events: func(t testing.TB) [][]byte {
			var list [][]byte
			for l := range bytes.Lines(read(t, out)) {
				var m struct {
					ResourceLogs []struct {
						Resource  struct{ Attributes []keyValue }
						ScopeLogs []struct {
							LogRecords []struct {
								TimeUnixNano string
								EventName    string
								Body         struct{ StringValue string }
								Attributes   []keyValue
							}
						}
					}
				}
				if err := json.Unmarshal(l, &m); err != nil {
					t.Fatalf("%v: %.300q", err, l)
				}
				for _, r := range m.ResourceLogs {
					for _, s := range r.ScopeLogs {
						for _, rec := range s.LogRecords {
							if rec.TimeUnixNano == "" || rec.EventName == "" || len(rec.Attributes) < 8 {
								t.Fatalf("%+v", rec)
							}
							list = append(list, []byte(rec.Body.StringValue))
						}
					}
				}
			}
			return list
		},
	}
}

type keyValue struct {
	Key   string
	Value map[string]any
}
