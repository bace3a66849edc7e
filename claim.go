package push

import (
	"errors"
	"reflect"
	"runtime"
	"sync"
	"weak"
)

// A Keeper keeps what waits for one Engine. Two of them at a time would both send all of it, and each would replace what the other had kept. That two processes
// share one is for their operator to see to (store/sql has an Owner for it); that two Engines of this process do is seen here.

// claims are the Engines of this process that have a Keeper and were not closed. They are not kept from the garbage collector.
var claims = struct {
	sync.Mutex
	of map[Keeper]weak.Pointer[Engine]
}{of: make(map[Keeper]weak.Pointer[Engine])}

var errClaimed = errors.New("push: Config.Store keeps what waits for another Engine, which was not closed, and both would send it; close that one first (its Close hands over what it could not send), " +
	"or give each Engine a Store of its own, or one that is no Keeper: struct{ push.Store }{store}")

// claim takes the Keeper for e, unless another Engine has it.
func (e *Engine) claim() error {
	k := e.keeper
	if k == nil || !reflect.ValueOf(k).Comparable() {
		return nil
	}
	claims.Lock()
	defer claims.Unlock()
	if o := claims.of[k].Value(); o != nil && !o.closed.Load() {
		return errClaimed
	}
	own := weak.Make(e)
	claims.of[k] = own
	runtime.AddCleanup(e, func(own weak.Pointer[Engine]) { unclaim(k, own) }, own)
	return nil
}

// unclaim lets others have it.
func unclaim(k Keeper, own weak.Pointer[Engine]) {
	if !reflect.ValueOf(k).Comparable() {
		return
	}
	claims.Lock()
	defer claims.Unlock()
	if claims.of[k] == own {
		delete(claims.of, k)
	}
}
