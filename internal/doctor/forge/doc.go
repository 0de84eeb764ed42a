// Package forge makes images that must not be let in, and a few that may: not
// signed, signed by strangers, too late or by the wrong name; altered on their
// way; claiming to be huge; with archives that reach outside. ward doctor uses
// it to show that every door refuses them.
//
// It keeps them in a registry of its own on the loopback interface, in a
// directory of the caller's, and makes new keys and names every time: nothing
// it makes is of use anywhere else. What it forges is small, whatever it claims.
package forge
