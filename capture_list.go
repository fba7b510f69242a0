// The list of captures that -pcap names: the argument goes in, the names of
// the files come out, in the order in which they are to be read.
//
// Rules: a name that exists is that file, whatever characters it has; only
// then is a part read as a directory's or a pattern's. What names nothing is
// an error that says so, never an empty list. A file is read once, however
// often it's named.

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// captureStdin is the name of standard input as a capture.
const captureStdin = "-"

// expandCaptureList returns the files that arg names, in the order of arg. Its
// parts, separated by commas, are each
//   - a file of any kind,
//   - a directory: its regular files, by name, without those whose name begins
//     with a dot and without its subdirectories, or
//   - a pattern as of filepath.Match: the regular files that it matches, by
//     name, without those whose name begins with a dot unless the pattern's does;
//
// where a name that exists is never taken for a pattern, and an arg that exists
// never for a list. "-" is standard input, and stands alone. A file named
// twice counts once, by its path made absolute. What names no file is an error.
func expandCaptureList(arg string) ([]string, error) {
	if arg == captureStdin {
		return []string{captureStdin}, nil
	}
	parts := strings.Split(arg, ",")
	if _, err := os.Stat(arg); err == nil {
		parts = []string{arg}
	}
	var names []string
	seen := map[string]bool{}
	for _, part := range parts {
		if part == "" {
			return nil, fmt.Errorf("empty name in the list of captures %q", arg)
		}
		if part == captureStdin {
			return nil, fmt.Errorf("standard input (%q) and other captures in %q: it can only be read alone", captureStdin, arg)
		}
		files, err := expandCapture(part)
		if err != nil {
			return nil, err
		}
		for _, name := range files {
			path, err := filepath.Abs(name)
			if err != nil {
				path = filepath.Clean(name)
			}
			if !seen[path] {
				seen[path] = true
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// expandCapture returns the files of one part of the list, at least one.
func expandCapture(part string) ([]string, error) {
	info, err := os.Stat(part)
	switch {
	case err == nil && info.IsDir():
		return captureDir(part)
	case err == nil:
		return []string{part}, nil
	case !strings.ContainsAny(part, `*?[`) || errors.Is(err, fs.ErrPermission):
		return nil, captureError("open capture", part, err)
	}
	matches, err := filepath.Glob(part)
	if err != nil {
		return nil, captureError("capture pattern", part, err)
	}
	hidden := strings.HasPrefix(filepath.Base(part), ".")
	var names []string
	for _, name := range matches {
		if (hidden || !strings.HasPrefix(filepath.Base(name), ".")) && isRegularFile(name) {
			names = append(names, name)
		}
	}
	switch {
	case len(names) > 0:
		return names, nil
	case len(matches) > 0:
		return nil, fmt.Errorf("capture pattern %q matches no regular file", part)
	default:
		return nil, fmt.Errorf("capture pattern %q matches nothing", part)
	}
}

// captureDir returns the regular files of a directory, by name.
func captureDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, captureError("open capture directory", dir, err)
	}
	var names []string
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if !strings.HasPrefix(e.Name(), ".") && isRegularFile(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("capture directory %q holds no regular file", dir)
	}
	return names, nil
}

// isRegularFile follows symbolic links. What a rotation has just removed is no
// file.
func isRegularFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// captureError returns err with the name quoted, once.
func captureError(doing, name string, err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	return fmt.Errorf("%s %q: %w", doing, name, err)
}

// orderByFirstPacket returns names in the order of their first packets, and of
// names where those are equal. first returns the time in ns of a capture's
// first packet; ok is false for one without packets, and those go last. Its
// error, which should name the capture, is returned as it is. A single name
// needs no order, and first isn't called: it may be a pipe. names is not
// changed.
func orderByFirstPacket(names []string, first func(name string) (ts int64, ok bool, err error)) ([]string, error) {
	if len(names) < 2 {
		return slices.Clone(names), nil
	}
	type capture struct {
		name string
		ts   int64
		ok   bool
	}
	captures := make([]capture, len(names))
	for i, name := range names {
		ts, ok, err := first(name)
		if err != nil {
			return nil, err
		}
		captures[i] = capture{name, ts, ok}
	}
	slices.SortStableFunc(captures, func(a, b capture) int {
		switch {
		case a.ok && b.ok:
			return cmp.Compare(a.ts, b.ts)
		case a.ok:
			return -1
		case b.ok:
			return 1
		default:
			return 0
		}
	})
	ordered := make([]string, len(captures))
	for i := range captures {
		ordered[i] = captures[i].name
	}
	return ordered, nil
}
