package websocket

import (
	"net"
	"syscall"
	"time"
	"unsafe"
)

// near is the round trip below which the gateway is on this machine or next to it.
const near = 500 * time.Microsecond

// withoutPacing takes congestion control that paces what it sends (BBR, where that is the default) away from a connection to a near
// gateway: there is nothing to learn on such a path, and the timers cost a third of the throughput.
func withoutPacing(nc net.Conn) {
	const tcpCongestion = 13
	tc, ok := nc.(*net.TCPConn)
	if !ok {
		return
	}
	rc, err := tc.SyscallConn()
	if err != nil {
		return
	}
	rc.Control(func(fd uintptr) {
		if rtt := roundTrip(fd); rtt > 0 && rtt < near {
			syscall.SetsockoptString(int(fd), syscall.IPPROTO_TCP, tcpCongestion, "cubic") // kernels without it keep what they have
		}
	})
}

// roundTrip is the kernel's measure of it (the least one it has seen: tcpi_min_rtt of linux/tcp.h), 0 when it tells none.
func roundTrip(fd uintptr) time.Duration {
	const rttAt = 148
	var info [rttAt + 4]byte
	size := uint32(len(info))
	_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.IPPROTO_TCP, syscall.TCP_INFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 || int(size) < len(info) {
		return 0
	}
	return time.Duration(*(*uint32)(unsafe.Pointer(&info[rttAt]))) * time.Microsecond
}
