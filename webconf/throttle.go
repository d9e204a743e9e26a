package webconf

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A throttle bounds the tries of passwords and one-time codes by address. Accounts have a limit of their
// own in package node; this one keeps a stranger from trying many accounts.
type throttle struct {
	mu       sync.Mutex
	limiters map[netip.Prefix]*rate.Limiter
	rest     *rate.Limiter // shared by addresses that the table has no room for
	swept    time.Time     // when room last looked through the table
}

func newThrottle() *throttle {
	return &throttle{limiters: map[netip.Prefix]*rate.Limiter{}, rest: newLimiter()}
}

func newLimiter() *rate.Limiter { return rate.NewLimiter(rate.Every(tryEvery), tryBurst) }

// allow counts a try from an address.
func (t *throttle) allow(address string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	who := network(address)
	l := t.limiters[who]
	if l == nil {
		l = t.rest
		if t.room() {
			l = newLimiter()
			t.limiters[who] = l
		}
	}
	return l.Allow()
}

// room forgets addresses that have their whole allowance again, when the table is full. It looks no
// sooner again than one of them can have got a try back.
func (t *throttle) room() bool {
	now := time.Now()
	if len(t.limiters) < maxAddresses || now.Sub(t.swept) < tryEvery {
		return len(t.limiters) < maxAddresses
	}
	t.swept = now
	for who, l := range t.limiters {
		if l.TokensAt(now) >= tryBurst {
			delete(t.limiters, who)
		}
	}
	return len(t.limiters) < maxAddresses
}

// network is what one party is likely to hold: an IPv4 address, or the /64 of an IPv6 address.
func network(address string) netip.Prefix {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{} // a Unix socket or a broken address: all of them together
	}
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
