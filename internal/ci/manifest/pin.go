package manifest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// place is where an image stands in the text of a file.
type place struct {
	line, column int
	style        yaml.Style
	// raw is the value as written, variables and all.
	raw string
}

func placeOf(n *yaml.Node) place { return place{n.Line, n.Column, n.Style, n.Value} }

// Pin writes name:tag@digest for the images of the containers given, and leaves
// every other byte of text as it is. pinned gives the new name of a container's
// image, or "" where it is to stay. The result is read again, and has to say
// the same as before but for those images.
func Pin(file string, text []byte, cs []Container, opt Options, pinned func(int, Container) string) ([]byte, error) {
	type change struct {
		from, to int
		with     string
	}
	var changes []change
	done := map[place]string{}
	for i, c := range cs {
		with := pinned(i, c)
		if with == "" {
			continue
		}
		if before, ok := done[c.at]; ok {
			if before != with {
				return nil, fileError(file, c.at.line, "the image stands for several; write each out to have it pinned")
			}
			continue
		}
		done[c.at] = with
		from, to, err := find(text, c.at)
		if err != nil {
			return nil, fileError(file, c.at.line, err.Error())
		}
		changes = append(changes, change{from, to, with})
	}
	slices.SortFunc(changes, func(a, b change) int { return a.from - b.from })
	if strings.ContainsAny(strings.ReplaceAll(string(text), "\r\n", ""), "\r\u0085\u2028\u2029") {
		return nil, fileError(file, 0, "has line breaks other than LF and CRLF; it cannot be pinned safely")
	}
	var out []byte
	last := 0
	for _, ch := range changes {
		if ch.from < last {
			return nil, fileError(file, 0, "images overlap")
		}
		out = append(append(out, text[last:ch.from]...), ch.with...)
		last = ch.to
	}
	out = append(out, text[last:]...)
	return out, same(file, text, out, cs, opt, pinned)
}

// find is where the characters of a scalar begin and end in the text.
func find(text []byte, p place) (from, to int, err error) {
	for range p.line - 1 {
		i := bytes.IndexByte(text[from:], '\n')
		if i < 0 {
			return 0, 0, fmt.Errorf("the image is not where it was read")
		}
		from += i + 1
	}
	if p.line == 1 && bytes.HasPrefix(text, []byte("\xef\xbb\xbf")) {
		from += 3
	}
	for range p.column - 1 {
		_, n := utf8.DecodeRune(text[from:])
		from += n // nothing at the end of the text
	}
	// An anchor or a tag stands before the value.
	for from < len(text) && (text[from] == '&' || text[from] == '!') {
		for from < len(text) && text[from] != ' ' && text[from] != '\n' {
			from++
		}
		for from < len(text) && text[from] == ' ' {
			from++
		}
	}
	if p.style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return 0, 0, fmt.Errorf("the image is written as a block; write it on one line to have it pinned")
	}
	if p.style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		from++
	}
	if from > len(text) || !bytes.HasPrefix(text[from:], []byte(p.raw)) {
		return 0, 0, fmt.Errorf("the image is written with escapes or over several lines; write it plainly to have it pinned")
	}
	return from, from + len(p.raw), nil
}

// same reads both texts and compares: what changed must be what was meant.
func same(file string, before, after []byte, cs []Container, opt Options, pinned func(int, Container) string) error {
	bad := func(why string) error {
		return fileError(file, 0, "pinning would change more than its images ("+why+")")
	}
	now, err := Read(file, after, opt)
	if err != nil {
		return bad(err.Error())
	}
	if len(now) != len(cs) {
		return bad("another number of containers")
	}
	for i, c := range now {
		want := pinned(i, cs[i])
		if want == "" {
			want = cs[i].Image
		}
		if c.Image != want || c.Name != cs[i].Name || len(c.Flags) != len(cs[i].Flags) || len(c.Unmapped) != len(cs[i].Unmapped) {
			return bad("at " + c.Name)
		}
	}
	if bytes.Count(before, []byte("\n")) != bytes.Count(after, []byte("\n")) {
		return bad("another number of lines")
	}
	return nil
}

// Pinned is the name of an image with its tag and a digest.
func Pinned(image, digest string) string {
	name, _, _ := strings.Cut(image, "@")
	return name + "@" + digest
}
