package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ticks a second in /proc/PID/stat: a constant of the ABI, see proc(5).
const ticks = 100

// processes are the measured servers.
type processes struct {
	pids []string
	cpu  []float64
}

func watch(pids string) (*processes, error) {
	p := &processes{}
	if pids != "" {
		p.pids = strings.Split(pids, ",")
	}
	p.cpu = make([]float64, len(p.pids))
	for i, pid := range p.pids {
		cpu, _, err := usage(pid)
		if err != nil {
			return nil, err
		}
		p.cpu[i] = cpu
	}
	return p, nil
}

// lap returns the CPU time of each since the last call, in milliseconds.
func (p *processes) lap() []float64 {
	spent := make([]float64, len(p.pids))
	for i, pid := range p.pids {
		if now, _, err := usage(pid); err == nil {
			spent[i], p.cpu[i] = now-p.cpu[i], now
		}
	}
	return spent
}

// memory returns the resident memory of each, in MiB.
func (p *processes) memory() []float64 {
	held := make([]float64, len(p.pids))
	for i, pid := range p.pids {
		_, held[i], _ = usage(pid)
	}
	return held
}

// usage reads a process's CPU time so far, in milliseconds, and its resident memory, in MiB.
func usage(pid string) (cpu, memory float64, err error) {
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0, 0, err
	}
	_, rest, found := strings.Cut(string(text), ") ") // the name before it may contain spaces
	fields := strings.Fields(rest)
	if !found || len(fields) < 22 {
		return 0, 0, fmt.Errorf("/proc/%s/stat: %q", pid, text)
	}
	var numbers [3]float64
	for i, field := range []int{11, 12, 21} { // utime, stime, rss
		if numbers[i], err = strconv.ParseFloat(fields[field], 64); err != nil {
			return 0, 0, err
		}
	}
	return (numbers[0] + numbers[1]) * 1000 / ticks, numbers[2] * float64(os.Getpagesize()) / (1 << 20), nil
}
