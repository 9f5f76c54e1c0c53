package world

import (
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
)

// This file is what the world knows of exposures. All of it runs with mu held.

func (w *World) setExposure(e *podnet.Exposure) {
	if e.DeletionTimestamp != nil {
		w.removeExposure(e)
		return
	}
	w.exposures[e.UID] = Exposure{e, ExposureOf(e)}
	w.LookAgain()
}

func (w *World) removeExposure(o client.Object) {
	delete(w.exposures, o.GetUID())
	w.LookAgain()
}

// ours reports whether an object is one that the gateways keep for an exposure.
func (w *World) ours(o client.Object) bool {
	return o.GetNamespace() == w.o.Namespace && o.GetLabels()[podnet.LabelExposure] != ""
}

// kept has the admitter look at what became of what the gateways keep.
func (w *World) kept(o client.Object) {
	if w.ours(o) {
		w.LookAgain()
	}
}

func (w *World) exposedBy() (all ExposedBy) {
	for _, s := range w.ownServices {
		if w.ours(s) {
			all.Services = append(all.Services, s)
		}
	}
	for _, s := range w.slices[w.o.Namespace] {
		if w.ours(s) {
			all.Slices = append(all.Slices, s)
		}
	}
	return all
}
