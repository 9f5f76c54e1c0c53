package daemon

import (
	"net/http"

	"podnet.dev/client/localapi"
	"podnet.dev/internal/httpjson"
)

// Profiles are what the user's configuration knows of ways to connect.
type Profiles interface {
	Profiles() ([]localapi.Profile, error)
	SaveProfile(localapi.Profile) error
	// RemoveProfile's error is of CodeNotFound where there is none of that name.
	RemoveProfile(name string) error
}

// noProfiles is what a daemon without a configuration has.
type noProfiles struct{}

func (noProfiles) Profiles() ([]localapi.Profile, error) { return nil, nil }
func (noProfiles) SaveProfile(localapi.Profile) error {
	return &localapi.Error{Code: localapi.CodeUsage, Message: "this daemon has no configuration to write to", Status: http.StatusBadRequest}
}
func (noProfiles) RemoveProfile(name string) error {
	return &localapi.Error{Code: localapi.CodeNotFound, Message: "there is no profile " + name, Status: http.StatusNotFound}
}

func (d *daemon) profiles(w http.ResponseWriter, _ *http.Request) {
	all, err := d.Profiles.Profiles()
	if err != nil {
		httpjson.WriteError(w, err)
		return
	}
	httpjson.Write(w, http.StatusOK, localapi.NewProfileList(all))
}

func (d *daemon) saveProfile(w http.ResponseWriter, r *http.Request) {
	var p localapi.Profile
	err := httpjson.Read(r, &p)
	if name := r.PathValue("name"); err == nil && p.Name != name {
		err = &localapi.Error{Code: localapi.CodeUsage, Message: "the profile is called " + p.Name + ", and the path says " + name, Status: http.StatusBadRequest}
	}
	if err == nil {
		err = p.Check()
	}
	if err == nil {
		err = d.Profiles.SaveProfile(p)
	}
	answerDone(w, err)
}

func (d *daemon) removeProfile(w http.ResponseWriter, r *http.Request) {
	answerDone(w, d.Profiles.RemoveProfile(r.PathValue("name")))
}

// answerDone is for calls that have nothing to tell but that it is done.
func answerDone(w http.ResponseWriter, err error) {
	if err != nil {
		httpjson.WriteError(w, err)
		return
	}
	httpjson.Write(w, http.StatusOK, struct{}{})
}
