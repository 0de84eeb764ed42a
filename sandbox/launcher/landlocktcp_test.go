package launcher_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/ward-project/ward/sandbox"
)

// tcper tries one way to use the TCP port it is given.
const tcper = `
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
int main(int argc, char **argv)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[2])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct iovec v = { "x", 1 };
	struct msghdr m = { .msg_name = &a, .msg_namelen = sizeof a, .msg_iov = &v, .msg_iovlen = 1 };
	struct mmsghdr mm = { .msg_hdr = m };
	const char *how = argv[1];
	int err = -1, one = 1, s = socket(AF_INET, how[0] == 'u' ? SOCK_DGRAM : SOCK_STREAM, how[0] == 'm' ? 262 : 0);
	if (s >= 0 && !strcmp(how + 1, "connect"))
		err = connect(s, (void *)&a, sizeof a);
	else if (s >= 0 && !strcmp(how + 1, "bind"))
		setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), err = bind(s, (void *)&a, sizeof a);
	else if (s >= 0 && !strcmp(how, "fastopen"))
		err = sendto(s, "x", 1, MSG_FASTOPEN, (void *)&a, sizeof a) < 0;
	else if (s >= 0 && !strcmp(how, "fastmsg"))
		err = sendmsg(s, &m, MSG_FASTOPEN) < 0;
	else if (s >= 0 && !strcmp(how, "fastmmsg"))
		err = sendmmsg(s, &mm, 1, MSG_FASTOPEN) < 0;
	if (err)
		return printf("%s: %m\n", how), 0;
	return printf("%s: done\n", how), 0;
}
`

// TestTCPPorts: on the host's network nothing but the ports of the plan, by the
// first process and by later ones, and by none of the ways that Landlock does
// not know for TCP.
func TestTCPPorts(t *testing.T) {
	needsLandlock(t, 4)
	r := newRig(t)
	r.compile("tcper", tcper)
	ports := make([]string, 2)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, ports[i], _ = net.SplitHostPort(l.Addr().String())
	}
	ways := func(bind, connect string) string {
		var b strings.Builder
		for _, w := range []string{"connect", "mconnect", "fastopen", "fastmsg", "fastmmsg"} {
			if w == "connect" {
				w = "tconnect"
			}
			fmt.Fprintf(&b, "tcper %s %s; ", w, connect)
		}
		fmt.Fprintf(&b, "tcper tbind %s; tcper mbind %s; tcper uconnect %s; exit 0", bind, bind, connect)
		return b.String()
	}
	const (
		detours = "fastopen: Operation not supported\nfastmsg: Operation not supported\nfastmmsg: Operation not supported\n"
		none    = "tconnect: Permission denied\nmconnect: Protocol not supported\n" + detours +
			"tbind: Permission denied\nmbind: Protocol not supported\nuconnect: done\n"
		some = "tconnect: done\nmconnect: Protocol not supported\n" + detours +
			"tbind: done\nmbind: Protocol not supported\nuconnect: done\n"
	)
	plan := func(bind, connect []string, args ...string) sandbox.Plan {
		p := r.plan(args...)
		p.Network, p.Landlock.TCPBind, p.Landlock.TCPConnect = sandbox.NetworkHost, bind, connect
		return p.Landlocked(sandbox.LandlockABI(), false)
	}
	for name, c := range map[string]struct {
		bind, connect []string
		script, want  string
	}{
		"no port":      {nil, nil, ways("0", ports[0]), none},
		"these":        {[]string{"0"}, ports[:1], ways("0", ports[0]), some},
		"another":      {[]string{"1"}, ports[:1], ways("0", ports[1]), none},
		"the other's":  {ports[:1], []string{"0"}, ways("0", ports[0]), none},
		"all":          {[]string{"*"}, []string{"*"}, ways("0", ports[0]), some},
		"only connect": {nil, []string{"*"}, "tcper tconnect " + ports[0] + "; tcper tbind 0", "tconnect: done\ntbind: Permission denied\n"},
	} {
		if got := r.run(plan(c.bind, c.connect, "/bin/sh", "-c", c.script)); got.out != c.want {
			t.Errorf("%s:\n%s%s", name, got.out, got.errOut)
		}
	}
	c := r.inhabit(plan([]string{"0"}, ports[:1], "/bin/sleep", "100"))
	if got := c.sh(ways("0", ports[0])); got != some {
		t.Errorf("a later process:\n%s", got)
	}
	if got := c.sh(ways("1", ports[1])); got != none {
		t.Errorf("a later process, another port:\n%s", got)
	}
	// The control: the ways are ways.
	p := plan(nil, nil, "/bin/sh", "-c", ways("0", ports[0])).Landlocked(sandbox.LandlockABI(), true)
	if got := r.run(p); strings.Contains(got.out, "not supported") || strings.Contains(got.out, "denied") {
		t.Errorf("without Landlock:\n%s", got.out)
	}
}
