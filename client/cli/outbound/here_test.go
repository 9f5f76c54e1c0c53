package outbound

// Here is for tests from outside.
type Here = here
