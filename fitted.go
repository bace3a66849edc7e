package push

// fewest is the size of a map from which on it is worth to give room back.
const fewest = 16

// fitted returns m, or a copy of it without the room that it had for many more: a map never gives that back. most is how many there were since it was
// made; whoever adds to it keeps that. The cost is spread over the removals that made it worth it.
func fitted[K comparable, V any](m map[K]V, most *int) map[K]V {
	if *most < fewest || len(m) > *most/4 {
		return m
	}
	*most = len(m)
	smaller := make(map[K]V, len(m))
	for k, v := range m {
		smaller[k] = v
	}
	return smaller
}
