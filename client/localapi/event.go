package localapi

import "time"

// Event is one line of progress while connecting, and one thing that happened
// to a session afterwards.
type Event struct {
	// Seq counts the events of one daemon from 1. The daemon sets it.
	Seq  int64     `json:"seq,omitempty"`
	Time time.Time `json:"time"`
	Type EventType `json:"type"`
	// Connection is the name of the session. The daemon sets it.
	Connection string `json:"connection,omitempty"`
	Phase      Phase  `json:"phase,omitempty"`
	// ElapsedMs counts from the start of connecting; zero once that is over.
	ElapsedMs int64 `json:"elapsedMs"`
	// Code names the Warning that a warning adds or that a cleared takes back.
	Code string `json:"code,omitempty"`
	// Text says it in a sentence for people.
	Text string `json:"text,omitempty"`
	// Path is the path in use after a move; its Others are left out.
	Path   *Path   `json:"path,omitempty"`
	Error  *Error  `json:"error,omitempty"`
	Status *Status `json:"status,omitempty"`
}

// EventType is what an Event tells.
type EventType string

// What happens while connecting.
const (
	EventPhase   EventType = "phase"   // a phase has begun
	EventDone    EventType = "done"    // that phase is over
	EventWarning EventType = "warning" // something to know about; also later
	EventReady   EventType = "ready"   // connected
	EventError   EventType = "error"   // not connected, and why
	// EventMode is exec's own: the way in which the command reaches the cluster, by its
	// Code, was chosen.
	EventMode EventType = "mode"
)

// What happens to a session that is ready.
const (
	EventPath       EventType = "path"       // another path is in use, or none
	EventGateway    EventType = "gateway"    // another gateway pod is in use
	EventLease      EventType = "lease"      // renewing failed, or works again
	EventNetwork    EventType = "network"    // this machine's network changed, or it woke up
	EventReenrolled EventType = "reenrolled" // a new key and new addresses, the old lease was over
	EventAddresses  EventType = "addresses"  // the cluster's networks are at other addresses of this machine
	EventNamespace  EventType = "namespace"  // short names are another namespace's
	EventPrimary    EventType = "primary"    // short names are another session's: this one's
	EventCleared    EventType = "cleared"    // a warning is over
	EventEnded      EventType = "ended"      // the session ended by itself; Error says why
	// EventDisconnected is the end that somebody asked for.
	EventDisconnected EventType = "disconnected"
)
