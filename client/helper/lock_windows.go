package helper

import (
	"context"
	"errors"
	"syscall"
)

var errNotYet = errors.New("not on Windows yet")

func lockState(context.Context, string) (func(), error) { return nil, &PrivilegeError{errNotYet} }

func tryLockState(string) (func(), error) { return nil, &PrivilegeError{errNotYet} }

func ownSession() *syscall.SysProcAttr { return nil }
