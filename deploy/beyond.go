package deploy

// The verbs on peers that admission asks for, with a prefix or a domain beside the
// cluster as the resource's name.
const (
	VerbRoute  = "also-route"
	VerbDomain = "also-domain"
)

// beyondKind is a field of a Peer whose every item takes a verb.
type beyondKind struct {
	Field, Verb string
	Pairs       []pair
}

// pair are two indexes of a list: an expression of a policy may ask the authorizer
// twice.
type pair struct{ First, Second int }

// maxBeyond is how many of each kind a Peer's schema takes.
const maxBeyond = 8

// beyond are the fields of a Peer that are about what lies beside the cluster.
func beyond() []beyondKind {
	var pairs []pair
	for i := 0; i < maxBeyond; i += 2 {
		pairs = append(pairs, pair{i, i + 1})
	}
	return []beyondKind{{"alsoRoutes", VerbRoute, pairs}, {"alsoDomains", VerbDomain, pairs}}
}
