package main

// The conversation of docs/protocol.md: one JSON object a line, over standard input and output.

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"syscall"
)

type message struct {
	ID     *int64          `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *failure        `json:"error"`
}

// failure is an error of the protocol: what the core answers, and what we answer to run.
type failure struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Data    struct {
		Kind string `json:"kind"`
		Hint string `json:"hint,omitempty"`
	} `json:"data"`
}

func (f *failure) Error() string { return f.Message }

func fail(kind, text string) error {
	f := &failure{Code: -32000, Message: text}
	f.Data.Kind = kind
	return f
}

type object = map[string]any

type conversation struct {
	messages chan message
	next     int64
}

// listen reads messages until the end of input.  A cancel and the end stop what waits for the context.
func listen(input io.Reader, stop context.CancelFunc) *conversation {
	c := &conversation{messages: make(chan message)}
	go func() {
		defer close(c.messages)
		defer stop()
		lines := bufio.NewReader(input)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				return
			}
			var m message
			if json.Unmarshal(line, &m) != nil {
				return
			}
			if m.Method == "cancel" {
				stop()
			}
			if m.Method == "" || m.ID != nil { // other notifications are not for us
				c.messages <- m
			}
		}
	}()
	return c
}

func send(m object) {
	m["jsonrpc"] = "2.0"
	data, _ := json.Marshal(m)
	if _, err := os.Stdout.Write(append(data, '\n')); err != nil {
		os.Exit(0) // cfsctl has gone
	}
}

func notify(method string, params object) { send(object{"method": method, "params": params}) }

// receive returns the next message; without one, cfsctl has gone.
func (c *conversation) receive() message {
	m, ok := <-c.messages
	if !ok {
		os.Exit(0)
	}
	return m
}

// call makes a call and puts its result into result.
func (c *conversation) call(ctx context.Context, method string, params object, result any) error {
	if ctx.Err() != nil {
		return fail("cancelled", "cancelled")
	}
	c.next++
	send(object{"id": c.next, "method": method, "params": params})
	answer := c.receive()
	if answer.Error != nil {
		return answer.Error
	}
	if err := json.Unmarshal(answer.Result, result); err != nil {
		return fail("protocol_error", method+": "+err.Error())
	}
	return nil
}

// answer answers the core's call with a result, or with the error that stopped us.
func answer(id *int64, result object, err error) {
	if err == nil {
		send(object{"id": id, "result": result})
		return
	}
	var f *failure
	if !errors.As(err, &f) {
		kind := map[bool]string{true: "no_space", false: "io"}[errors.Is(err, syscall.ENOSPC)]
		errors.As(fail(kind, err.Error()), &f)
	}
	send(object{"id": id, "error": f})
}
