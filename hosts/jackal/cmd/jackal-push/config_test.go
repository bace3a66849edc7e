package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestExample(t *testing.T) {
	cfg, own, err := load("example.yaml")
	require.NoError(t, err)
	require.Equal(t, "localhost", cfg.Hosts[0].Domain)
	require.Equal(t, "jackal.db", cfg.Storage.BoltDB.Path)
	require.Equal(t, 24*time.Hour, cfg.C2S.Listeners[0].KeepAliveTimeout)
	require.Equal(t, []string{"scram_sha_512", "scram_sha_256", "scram_sha_1"}, cfg.C2S.Listeners[0].SASL.Mechanisms)
	require.Equal(t, 12*time.Hour, cfg.Modules.Stream.RequestAckInterval)
	require.Equal(t, 10*time.Second, cfg.Components.Listeners[0].ConnectTimeout)
	require.Equal(t, 131072, cfg.Components.Listeners[0].MaxStanzaSize)
	require.Equal(t, "push.db", own.Registrations)

	_, _, err = load("")
	require.ErrorContains(t, err, "-config FILE")
}
