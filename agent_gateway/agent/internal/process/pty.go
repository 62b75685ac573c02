package process

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// OpenPTY makes a terminal. It needs no /dev/pts path: the slave comes from the master by ioctl.
func OpenPTY(rows, cols int) (master, slave *os.File, err error) {
	const (
		setLock = 0x40045431 // TIOCSPTLCK
		getPeer = 0x5441     // TIOCGPTPEER
	)
	fd, err := syscall.Open("/dev/ptmx", syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, &StartError{Code: CodeRefused, Bare: true, Text: fmt.Sprintf("no terminal can be had: open /dev/ptmx: %v", err)}
	}
	var unlocked int32
	if errno := ioctl(uintptr(fd), setLock, uintptr(unsafe.Pointer(&unlocked))); errno != 0 {
		syscall.Close(fd)
		return nil, nil, fmt.Errorf("unlock the terminal: %w", errno)
	}
	peer, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), getPeer, syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC)
	if errno != 0 {
		syscall.Close(fd)
		return nil, nil, fmt.Errorf("open the terminal: %w", errno)
	}
	master, slave = os.NewFile(uintptr(fd), "/dev/ptmx"), os.NewFile(peer, "/dev/pts")
	if rows > 0 && cols > 0 {
		Resize(master, rows, cols)
	}
	return master, slave, nil
}

// Resize sets a terminal's size.
func Resize(master *os.File, rows, cols int) error {
	size := [4]uint16{uint16(rows), uint16(cols)}
	rc, err := master.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	if err := rc.Control(func(fd uintptr) { errno = ioctl(fd, syscall.TIOCSWINSZ, uintptr(unsafe.Pointer(&size))) }); err != nil {
		return err
	}
	if errno != 0 {
		return errno
	}
	return nil
}

func ioctl(fd, request, arg uintptr) syscall.Errno {
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, request, arg)
	return errno
}
