/* getaddrinfo NAME prints the addresses that a C library gives for a name: of
 * musl, in the resolver story. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
	struct addrinfo hints, *all, *a;
	char text[NI_MAXHOST];
	int err;

	if (argc != 2)
		return 64;
	memset(&hints, 0, sizeof hints);
	hints.ai_socktype = SOCK_STREAM;
	if ((err = getaddrinfo(argv[1], NULL, &hints, &all)) != 0) {
		fprintf(stderr, "%s: %s\n", argv[1], gai_strerror(err));
		return 2;
	}
	for (a = all; a; a = a->ai_next)
		if (getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST) == 0)
			puts(text);
	freeaddrinfo(all);
	return 0;
}
