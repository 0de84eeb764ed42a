package policy

// Exec is another process that is to be started in a container that runs,
// final values as in Run; Run is then what the container runs by. It is empty
// at other points.
type Exec struct {
	// Purpose is "health" if ward asks by itself, else empty.
	Purpose string   `json:"purpose"`
	Args    []string `json:"args"`
	// EnvNames are the names of the environment's variables, as in Run.
	EnvNames     []string `json:"env_names"`
	Cwd          string   `json:"cwd"`
	User         User     `json:"user"`
	Capabilities []string `json:"capabilities"`
	// Terminal and Stdin say whether it gets a terminal and the caller's input.
	Terminal bool `json:"terminal"`
	Stdin    bool `json:"stdin"`
	// RequestedUser is the user as asked for.
	RequestedUser string `json:"requested_user"`
}

// Cp is a copy into a container or out of one; Run is what the container runs
// by. It is empty at other points.
type Cp struct {
	// Direction is "in" or "out", as the container sees it.
	Direction string `json:"direction"`
	// Path is in the container, as asked for; its links are not yet followed.
	Path string `json:"path"`
	// Archive keeps owners, FollowLinks copies what a link names.
	Archive     bool `json:"archive"`
	FollowLinks bool `json:"follow_links"`
}

// Attach is a client that is to get the streams of a container that runs; Run
// is what it runs by. It is empty at other points.
type Attach struct {
	// Stdin says that it may also write, Terminal that it is to a terminal.
	Stdin    bool `json:"stdin"`
	Terminal bool `json:"terminal"`
}

// fill turns absent lists into empty ones.
func (e *Exec) fill() {
	for _, l := range []*[]string{&e.Args, &e.EnvNames, &e.Capabilities} {
		if *l == nil {
			*l = []string{}
		}
	}
	if e.User.Groups == nil {
		e.User.Groups = []uint32{}
	}
}
