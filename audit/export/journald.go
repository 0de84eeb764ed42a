package export

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/url"
)

func init() { schemes["journald"] = journald }

// journald sends to systemd's journal in its native protocol: one datagram an
// event, to the journal's socket, or the one the URL names. What the socket
// took counts as acknowledged: the journal says nothing.
func journald(d *Destination, u *url.URL, _ Options) error {
	if u.Host != "" {
		return fmt.Errorf("%w: journald:// or journald:///PATH names a socket on this host", ErrConfig)
	}
	path := u.Path
	if path == "" || path == "/" {
		path = "/run/systemd/journal/socket"
	}
	d.open = func(json.RawMessage) (sink, error) { return datagrams{path, journalEntry}, nil }
	return nil
}

// journalMessageID says what kind of entry it is; chosen once, at random.
const journalMessageID = "6b7c1d0e52f84a0e9f3b8a4c2d917e55"

// journalEntry writes every field with its length, in which nothing can end it.
func journalEntry(m message) []byte {
	var b bytes.Buffer
	priority := []string{"6", "6", "5", "4", "3"}[m.severity()]
	for _, f := range [][2]string{
		{"MESSAGE", string(m.body)}, {"PRIORITY", priority}, {"SYSLOG_IDENTIFIER", "ward"}, {"MESSAGE_ID", journalMessageID},
		{"WARD_ID", m.ID}, {"WARD_TYPE", string(m.Type)}, {"WARD_LEAF_HASH", m.LeafHash}, {"WARD_RUN", m.Run}, {"WARD_DECISION", m.Decision},
		{"WARD_RULE", plain(m.Rule)}, {"WARD_CLASS", plain(m.Class)}, {"CONTAINER_ID_FULL", plain(m.container())}, {"CONTAINER_NAME", plain(m.Name)},
		{"IMAGE_NAME", plain(m.Image.Reference)}, {"IMAGE_DIGEST", plain(m.Image.Digest)},
	} {
		if f[1] == "" {
			continue
		}
		b.WriteString(f[0] + "\n")
		b.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(f[1]))))
		b.WriteString(f[1] + "\n")
	}
	return b.Bytes()
}
