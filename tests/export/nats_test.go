package export

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// jetstream is a nats-server with a stream that keeps its messages in files.
func jetstream(t testing.TB) receiver {
	t.Helper()
	bin, addr, dir := tools(t), freeAddr(t), t.TempDir()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	start := func(t testing.TB) *exec.Cmd {
		return program(t, addr, exec.Command(filepath.Join(bin, "nats-server"), "-js", "-sd", dir, "-a", "127.0.0.1", "-p", port))
	}
	made := false
	return receiver{
		to: []string{"--to", "nats://" + addr + "/audit.host1"},
		start: func(t testing.TB) *exec.Cmd {
			cmd := start(t)
			if !made {
				c := dialNATS(t, addr)
				defer c.Close()
				if a := c.ask(t, "$JS.API.STREAM.CREATE.AUDIT", `{"name":"AUDIT","subjects":["audit.>"],"storage":"file","retention":"limits","discard":"old","num_replicas":1,"max_consumers":-1,"max_msgs":-1,"max_bytes":-1}`); !strings.Contains(a, `"config"`) {
					t.Fatal(a)
				}
				made = true
			}
			return cmd
		},
		events: func(t testing.TB) [][]byte {
			start(t)
			c := dialNATS(t, addr)
			defer c.Close()
			var list [][]byte
			for seq := 1; ; seq++ {
				var a struct {
					Message struct {
						Data []byte
						Hdrs []byte
					}
					Error any
				}
				if err := json.Unmarshal([]byte(c.ask(t, "$JS.API.STREAM.MSG.GET.AUDIT", fmt.Sprintf(`{"seq":%d}`, seq))), &a); err != nil {
					t.Fatal(err)
				}
				if a.Error != nil {
					return list
				}
				if !strings.Contains(string(a.Message.Hdrs), "Nats-Msg-Id: ward:ward/host-1.example/") {
					t.Fatalf("%q", a.Message.Hdrs)
				}
				list = append(list, a.Message.Data)
			}
		},
	}
}

// natsConn is enough of a client to ask the server's own questions.
type natsConn struct {
	net.Conn
	r *bufio.Reader
}

func dialNATS(t testing.TB, addr string) *natsConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "CONNECT {\"verbose\":false}\r\nSUB answer 1\r\n"); err != nil {
		t.Fatal(err)
	}
	return &natsConn{c, bufio.NewReader(c)}
}

func (c *natsConn) ask(t testing.TB, subject, body string) string {
	t.Helper()
	if _, err := fmt.Fprintf(c, "PUB %s answer %d\r\n%s\r\n", subject, len(body), body); err != nil {
		t.Fatal(err)
	}
	for {
		l, err := c.r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		f := strings.Fields(l)
		if len(f) < 4 || f[0] != "MSG" {
			continue
		}
		n, err := strconv.Atoi(f[len(f)-1])
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, n+2)
		if _, err := io.ReadFull(c.r, b); err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

func TestJetStream(t *testing.T) { storm(t, jetstream(t)) }
