package main

// privilege.go gives up root.
//
// In: the name of a user (-user), once the devices and the log file are open.
// Out: a process that is that user in all its threads and can't become root again.
//
// Rules: a device that vanishes has to be opened again later, which takes CAP_NET_RAW. So one thread, the deviceOpener's,
// keeps that capability and nothing else; capabilities belong to threads. It runs nothing but the opening of the devices
// that the command line named. All other threads have none.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// deviceOpener runs functions, one at a time, on an OS thread of its own.
type deviceOpener struct {
	work chan func()
	done chan struct{}
}

func newDeviceOpener() *deviceOpener {
	o := &deviceOpener{work: make(chan func()), done: make(chan struct{})}
	go func() {
		// Never unlocked: a thread with a capability of its own ends with its goroutine.
		runtime.LockOSThread()
		for f := range o.work {
			f()
			o.done <- struct{}{}
		}
	}()
	return o
}

// do runs f on the thread and returns when it has returned. Safe for several goroutines.
func (o *deviceOpener) do(f func()) {
	o.work <- f
	<-o.done
}

// close ends the thread.
func (o *deviceOpener) close() { close(o.work) }

// account is a user that exists, with all its groups.
type userAccount struct {
	name     string
	uid, gid int
	groups   []int
}

// lookupUser finds a user by name or number. The error is a *usageError.
func lookupUser(name string) (*userAccount, error) {
	bad := func(err error) error {
		return &usageError{msg: fmt.Sprintf("bad user %s (-user): %v", quote(name), err), hint: "want a user of this system other than root"}
	}
	u, err := user.Lookup(name)
	if err != nil {
		if _, numErr := strconv.Atoi(name); numErr == nil {
			u, err = user.LookupId(name)
		}
	}
	if err != nil {
		return nil, bad(errors.New("no such user"))
	}
	a := &userAccount{name: u.Username}
	if a.uid, err = strconv.Atoi(u.Uid); err != nil {
		return nil, bad(err)
	}
	if a.gid, err = strconv.Atoi(u.Gid); err != nil {
		return nil, bad(err)
	}
	if a.uid == 0 {
		return nil, bad(errors.New("that is root"))
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, bad(err)
	}
	for _, id := range ids {
		n, err := strconv.Atoi(id)
		if err != nil {
			return nil, bad(err)
		}
		a.groups = append(a.groups, n)
	}
	return a, nil
}

// become makes every thread of the process the user a, for good, and checks that. o's thread keeps CAP_NET_RAW.
func (a *userAccount) become(o *deviceOpener) error {
	if os.Geteuid() != 0 {
		if os.Geteuid() == a.uid {
			return nil
		}
		return fmt.Errorf("become user %q: only root can", a.name)
	}
	var err error
	o.do(func() { err = unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0) })
	if err != nil {
		return fmt.Errorf("become user %q: keep capabilities: %w", a.name, err)
	}
	// The three reach all threads.
	if err := syscall.Setgroups(a.groups); err != nil {
		return fmt.Errorf("become user %q: set groups: %w", a.name, err)
	}
	if err := syscall.Setresgid(a.gid, a.gid, a.gid); err != nil {
		return fmt.Errorf("become user %q: set group: %w", a.name, err)
	}
	if err := syscall.Setresuid(a.uid, a.uid, a.uid); err != nil {
		return fmt.Errorf("become user %q: set user: %w", a.name, err)
	}
	o.do(func() {
		err = setThreadCapabilities(1 << unix.CAP_NET_RAW)
		if err == nil {
			err = unix.Prctl(unix.PR_SET_KEEPCAPS, 0, 0, 0, 0)
		}
	})
	if err != nil {
		return fmt.Errorf("become user %q: keep only CAP_NET_RAW: %w", a.name, err)
	}
	return a.verify()
}

// becomeWithLog is become, for a process that has a log file open ("" for none): the user gets it and must be able to
// rotate it.
func (a *userAccount) becomeWithLog(o *deviceOpener, logFile string) error {
	if logFile != "" && os.Geteuid() == 0 {
		if err := a.giveLogFile(logFile); err != nil {
			return err
		}
	}
	if err := a.become(o); err != nil {
		return err
	}
	if logFile != "" {
		return a.checkLogFile(logFile)
	}
	return nil
}

// setThreadCapabilities makes the capabilities of the calling thread those of set, and none inheritable.
func setThreadCapabilities(set uint64) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(set), Permitted: uint32(set)},
		{Effective: uint32(set >> 32), Permitted: uint32(set >> 32)},
	}
	return unix.Capset(&hdr, &data[0])
}

// verify checks, by trying and by looking at every thread, that the process is user a and can't become root.
func (a *userAccount) verify() error {
	if syscall.Setresuid(-1, 0, -1) == nil || syscall.Setresgid(-1, 0, -1) == nil && a.gid != 0 {
		return fmt.Errorf("become user %q: root could be regained", a.name)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("become user %q: %w", a.name, err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(filepath.Join("/proc/self/task", task.Name(), "status"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			return fmt.Errorf("become user %q: %w", a.name, err)
		}
		if err := a.verifyThread(string(text)); err != nil {
			return fmt.Errorf("become user %q: thread %s: %w", a.name, task.Name(), err)
		}
	}
	return nil
}

// verifyThread checks the status file of one thread (proc(5)): its four user and group ids, and its capabilities.
func (a *userAccount) verifyThread(status string) error {
	ids := func(n int) string { return strings.TrimSuffix(strings.Repeat(strconv.Itoa(n)+"\t", 4), "\t") }
	want := map[string]string{"Uid": ids(a.uid), "Gid": ids(a.gid)}
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch name {
		case "Uid", "Gid":
			if value != want[name] {
				return fmt.Errorf("its %s is %s, not %s", name, value, want[name])
			}
		case "CapEff", "CapPrm", "CapInh", "CapAmb":
			set, err := strconv.ParseUint(value, 16, 64)
			if err != nil || set&^(1<<unix.CAP_NET_RAW) != 0 {
				return fmt.Errorf("it still has capabilities (%s %s)", name, value)
			}
		}
	}
	return nil
}

// giveLogFile makes the user the owner of a log file that root has just made, as long as it still is root's.
func (a *userAccount) giveLogFile(path string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("give log file %q to user %q: %w", path, a.name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("give log file %q to user %q: %w", path, a.name, err)
	}
	// A hard link could be another file of root's; a device such as /dev/null stays whose it is.
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Uid != 0 || st.Nlink != 1 {
		return nil
	}
	if err := unix.Fchown(fd, a.uid, a.gid); err != nil {
		return fmt.Errorf("give log file %q to user %q: %w", path, a.name, err)
	}
	return nil
}

// checkLogFile says whether the process, as it is now, can go on writing and rotating its log file.
func (a *userAccount) checkLogFile(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("log file %q, as user %q: %w", path, a.name, pathReason(err))
	}
	if err := unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("log file %q can't be written as user %q: %w", path, a.name, err)
	}
	if !fi.Mode().IsRegular() {
		return nil
	}
	dir := filepath.Dir(path)
	if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return &deviceError{
			msg:  fmt.Sprintf("directory %q can't be written as user %q, so the log file could not be rotated: %v", dir, a.name, err),
			hint: fmt.Sprintf("install -d -o %s %s", a.name, dir),
		}
	}
	return nil
}
