package main

import (
	"net"
	"net/netip"
	"sync"
)

// Somebody who has not said yet who they are costs a connection, two goroutines and up to maxStranger bytes for as long as negotiateIn. How many of those one
// address has at a time is bounded here, so that it cannot take all file descriptors. What somebody with an account may have is bounded for the account
// (maxSessions), whatever addresses it comes from: many people share one.

// strangersPerAddress is how many connections of one address may be logging in, if Config says nothing else.
const strangersPerAddress = 100

// strangers counts them by address.
type strangers struct {
	mu sync.Mutex
	of map[netip.Prefix]int
}

// meet counts a connection in, until known is called, once or more often. It is not ok if its address has too many already. This machine may have any
// number: a proxy on it speaks for many.
func (s *Server) meet(conn net.Conn) (known func(), ok bool) {
	at, counted := addressOf(conn)
	limit := s.cfg.StrangersPerAddress
	if limit == 0 {
		limit = strangersPerAddress
	}
	if !counted || limit < 0 {
		return func() {}, true
	}
	c := &s.strangers
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of[at] >= limit {
		return nil, false
	}
	if c.of == nil {
		c.of = make(map[netip.Prefix]int)
	}
	c.of[at]++
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.of[at]--; c.of[at] == 0 {
			delete(c.of, at)
		}
	}), true
}

// addressOf is whom a connection counts for: an address, or a network of IPv6 addresses, of which everybody has as many as they like.
func addressOf(conn net.Conn) (at netip.Prefix, counted bool) {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok || tcp.IP.IsLoopback() {
		return netip.Prefix{}, false
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	at, err := ip.Prefix(bits)
	return at, err == nil
}
