// Zip is an extension of cfsctl: it fetches a zip archive over HTTP and makes an image of it.
// It was written from docs/writing-an-extension.md, with Go's standard library alone.
package main

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"strings"
)

const (
	contentType = "7a69702d66657463" // "zip-fetc"
	maxFiles    = 100_000
	maxBytes    = 4 << 30 // of the archive, and of all that is in it
	batch       = 500
)

// entry is a line of the dump to be.
type entry struct {
	path   string
	mode   uint32 // with the type, as in stat(2)
	size   int64
	time   int64
	target string // of a link
	staged string // the file in staging, until it is put
	id     string
}

func main() {
	ctx, stop := context.WithCancel(context.Background())
	c := listen(os.Stdin, stop)
	first := c.receive()
	var welcome struct{ Versions []int }
	json.Unmarshal(first.Params, &welcome)
	if !has(welcome.Versions, 1) {
		answer(first.ID, nil, fail("unsupported", "zip speaks version 1 of the protocol"))
	} else {
		answer(first.ID, object{"version": 1}, nil)
		run := c.receive()
		result, err := pull(ctx, c, run)
		if ctx.Err() != nil {
			err = fail("cancelled", "cancelled")
		}
		answer(run.ID, result, err)
	}
	for range c.messages { // until the end of input
	}
}

func has(versions []int, wanted int) bool {
	for _, version := range versions {
		if version == wanted {
			return true
		}
	}
	return false
}

func pull(ctx context.Context, c *conversation, run message) (object, error) {
	var given struct {
		Arguments struct {
			URL, Name string
			Repair    bool
		}
	}
	if err := json.Unmarshal(run.Params, &given); err != nil {
		return nil, fail("usage", err.Error())
	}
	checksum, err := download(ctx, given.Arguments.URL)
	if err != nil {
		return nil, err
	}
	stream := "zip-" + checksum
	image := ""
	if !given.Arguments.Repair {
		if image, err = stored(ctx, c, stream); err != nil {
			return nil, err
		}
	}
	streams := []object{}
	if image == "" {
		var id string
		if id, image, err = store(ctx, c, checksum); err != nil {
			return nil, err
		}
		streams = append(streams, object{"name": stream, "id": id, "if_exists": "keep"})
	}
	ref := "zip/" + given.Arguments.Name
	err = c.call(ctx, "publish", object{
		"streams": streams,
		"images":  []object{{"id": image, "ref": ref}},
		"refs":    []object{{"name": ref, "target": stream}},
	}, &struct{}{})
	if err != nil {
		return nil, err
	}
	notify("output", object{"text": image + "\n"})
	return object{"image": image, "stream": stream, "present": len(streams) == 0}, nil
}

// download writes the archive to the staged file "archive" and returns its checksum.
func download(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return "", fail("usage", err.Error())
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", fail("network", err.Error())
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		kind := map[bool]string{true: "not_found", false: "network"}[response.StatusCode == http.StatusNotFound]
		return "", fail(kind, url+": "+response.Status)
	}
	file, err := os.Create("archive")
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := sha256.New()
	size, err := io.Copy(io.MultiWriter(file, hash), io.LimitReader(response.Body, maxBytes+1))
	if err != nil {
		return "", failCopy(err, "network", url)
	}
	if size > maxBytes {
		return "", fail("too_large", url+": more than 4 GiB")
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// stored returns the image of a stream that is here already, or nothing.
func stored(ctx context.Context, c *conversation, stream string) (string, error) {
	var found struct {
		NamedRefs [][2]string `json:"named_refs"`
	}
	err := c.call(ctx, "stream.get", object{"name": stream}, &found)
	if f, ok := err.(*failure); ok && f.Data.Kind == "not_found" {
		return "", nil
	}
	for _, ref := range found.NamedRefs {
		if ref[0] == "composefs.image" {
			return ref[1], err
		}
	}
	return "", err
}

// store puts all that is in the archive, and returns the ids of a stream and an image of it.
func store(ctx context.Context, c *conversation, checksum string) (stream, image string, err error) {
	entries, err := unpack(ctx)
	if err != nil {
		return "", "", err
	}
	files := []*entry{}
	for _, e := range entries {
		if e.staged != "" {
			files = append(files, e)
		}
	}
	for done := 0; done < len(files); done += batch {
		part := files[done:min(done+batch, len(files))]
		if err := put(ctx, c, part); err != nil {
			return "", "", err
		}
		notify("progress", object{"id": "files", "kind": "progress", "done": done + len(part), "total": len(files),
			"unit": "items", "label": "files"})
	}
	dump, refs := strings.Builder{}, []string{}
	seen := map[string]bool{}
	for _, e := range entries {
		dump.WriteString(e.line())
		if e.id != "" && !seen[e.id] {
			seen[e.id] = true
			refs = append(refs, e.id)
		}
	}
	var stored struct{ ID string }
	if err := os.WriteFile("dump", []byte(dump.String()), 0o600); err != nil {
		return "", "", err
	}
	if err := c.call(ctx, "image.put", object{"dump": "dump"}, &stored); err != nil {
		return "", "", err
	}
	image = stored.ID
	record := "sha256:" + checksum + "\n"
	list := []byte{}
	for _, id := range refs {
		list = append(list, '"')
		list = append(list, id...)
		list = append(list, "\"\n"...)
	}
	for name, data := range map[string][]byte{"record": []byte(record), "refs": list} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			return "", "", err
		}
	}
	err = c.call(ctx, "stream.put", object{
		"content_type": contentType, "inline": "record", "chunks": []int{-len(record)},
		"object_refs_file": "refs", "named_refs": [][2]string{{"composefs.image", image}},
	}, &stored)
	return stored.ID, image, err
}

// put takes staged files into the repository; each row says how it went.
func put(ctx context.Context, c *conversation, files []*entry) error {
	rows := []object{}
	for _, e := range files {
		rows = append(rows, object{"name": e.staged, "size": e.size})
	}
	var answer struct {
		Objects []struct {
			ID    string
			Error *struct{ Kind, Message string }
		}
	}
	if err := c.call(ctx, "object.put", object{"files": rows}, &answer); err != nil {
		return err
	}
	if len(answer.Objects) != len(files) {
		return fail("protocol_error", "object.put answered another number of rows")
	}
	for i, row := range answer.Objects {
		if row.Error != nil {
			return fail(row.Error.Kind, files[i].path+": "+row.Error.Message)
		}
		files[i].id = row.ID
	}
	return nil
}

// unpack stages the files of the archive and returns all entries, a directory before what is in it.
func unpack(ctx context.Context) ([]*entry, error) {
	archive, err := zip.OpenReader("archive")
	if err != nil {
		return nil, fail("invalid", "the archive: "+err.Error())
	}
	defer archive.Close()
	if len(archive.File) > maxFiles {
		return nil, fail("too_large", "the archive has more than 100,000 entries")
	}
	found := map[string]*entry{"/": {path: "/", mode: 0o40755}}
	left := int64(maxBytes)
	for number, file := range archive.File {
		path, err := clean(file.Name)
		if err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		for end := strings.LastIndex(path, "/"); end > 0; end = strings.LastIndex(path[:end], "/") {
			above := path[:end]
			if found[above] == nil { // archives need not name directories
				found[above] = &entry{path: above, mode: 0o40755}
			} else if found[above].mode>>12 != 0o4 {
				return nil, fail("invalid", above+": both a file and a directory")
			}
		}
		e := &entry{path: path, time: file.Modified.Unix()}
		if old := found[path]; old != nil && (old.mode>>12 != 0o4 || !file.Mode().IsDir()) {
			return nil, fail("invalid", path+": twice in the archive")
		}
		found[path] = e
		switch mode := file.Mode(); {
		case mode.IsDir():
			e.mode = 0o40000 | uint32(mode.Perm())
		case mode.IsRegular(), mode&os.ModeSymlink != 0:
			name := fmt.Sprintf("f%d", number)
			if e.size, err = stage(file, name, left); err != nil {
				return nil, err
			}
			left -= e.size
			if mode.IsRegular() {
				e.mode = 0o100000 | uint32(mode.Perm())
				if e.size > 0 {
					e.staged = name
				}
				break
			}
			target, err := os.ReadFile(name)
			if err != nil || len(target) == 0 || len(target) > 4095 {
				return nil, fail("invalid", path+": a symbolic link with no good target")
			}
			e.mode, e.target = 0o120777, string(target)
		default:
			return nil, fail("unsupported", path+": neither a file, a directory nor a symbolic link")
		}
	}
	entries := []*entry{}
	for _, e := range found {
		entries = append(entries, e)
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].path < entries[j].path })
	return entries, nil
}

// clean returns the absolute path of a name in the archive, or refuses it.
func clean(name string) (string, error) {
	path := strings.TrimSuffix(name, "/")
	for _, part := range strings.Split(path, "/") {
		if part == "" || part == "." || part == ".." || len(part) > 255 || strings.Contains(part, "\x00") {
			return "", fail("invalid", fmt.Sprintf("the archive has an entry called %q", name))
		}
	}
	return "/" + path, nil
}

// stage writes what is in an entry to a staged file; archive/zip checks its checksum.
func stage(file *zip.File, name string, left int64) (int64, error) {
	in, err := file.Open()
	if err != nil {
		return 0, fail("invalid", file.Name+": "+err.Error())
	}
	defer in.Close()
	out, err := os.Create(name)
	if err != nil {
		return 0, err
	}
	size, err := io.Copy(out, io.LimitReader(in, left+1))
	if size > left {
		return 0, fail("too_large", "the archive holds more than 4 GiB")
	}
	if err != nil {
		return 0, failCopy(err, "corrupt", file.Name)
	}
	return size, out.Close()
}

// failCopy refuses what was copied from, with a kind for that, unless it was the staged file that failed: a full disk.
func failCopy(err error, kind, from string) error {
	var own *os.PathError
	if errors.As(err, &own) {
		return err
	}
	return fail(kind, from+": "+err.Error())
}

// line is the entry as composefs-dump(5) has it.
func (e *entry) line() string {
	links, payload, digest, size := 1, "-", "-", e.size
	switch {
	case e.id != "":
		payload, digest = e.id[:2]+"/"+e.id[2:], e.id
	case e.target != "":
		payload, size = escape(e.target), int64(len(e.target))
		if payload == "-" {
			payload = `\x2d`
		}
	case e.mode>>12 == 0o4:
		links = 2
	}
	return fmt.Sprintf("%s %d %o %d 0 0 0 %d.0 %s - %s\n", escape(e.path), size, e.mode, links, e.time, payload, digest)
}

func escape(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if c := text[i]; c <= ' ' || c >= 0x7f || c == '\\' {
			fmt.Fprintf(&b, `\x%02x`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
