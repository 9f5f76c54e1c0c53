package serve

import "errors"

func (s *Server) listenUDP(k PortKey) (*port, error) { return nil, errors.New("UDP ports are not steered yet") }
