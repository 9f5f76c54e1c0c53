package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"
)

// worker is the program inside a namespace.
func worker(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("worker: which?")
	}
	at := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	switch args[0] {
	case "tun":
		return runTUN()
	case "netstack":
		return runNetstack()
	case "podnet-tun":
		return runPodnet()
	case "steal-gateway":
		return stealGateway()
	case "steal-laptop":
		return stealLaptop()
	case "steal-web":
		return stealWeb(at(1), args[min(2, len(args)):])
	case "scale-gateway":
		return scaleGateway(at(1))
	case "hold":
		return holdFlows(at(1))
	case "crowd":
		return crowd(at(1))
	case "serve":
		return serve(at(1))
	case "feature":
		return setFeature(at(1), at(2), at(3) == "on")
	case "udp":
		rate, err := udpRate(at(1), at(2))
		return answer(map[string]float64{"Rate": rate}, err)
	case "idle":
		n, err := strconv.Atoi(at(2))
		if err != nil {
			return err
		}
		return answer(struct{}{}, idle(at(1), n))
	}
	d, err := time.ParseDuration(at(2))
	if err != nil {
		return err
	}
	switch args[0] {
	case "rr":
		r, err := roundTrips(at(1), d)
		return answer(r, err)
	case "connects":
		rate, failed, err := connects(at(1), d)
		return answer(map[string]any{"Rate": rate, "Failed": failed}, err)
	}
	return fmt.Errorf("worker: unknown %q", args[0])
}

// answer prints what a load found out for the process that asked.
func answer(v any, err error) error {
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(v)
}
