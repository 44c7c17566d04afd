/* Sends one frame through a network interface again and again, as fast as it can, for some seconds; prints how many, and the
 * processor's time for each in nanoseconds, which has in it what the kernel does with the frame at the other end of a veth.
 *
 * Usage: flood INTERFACE SECONDS < FRAME      the frame in bytes, as it is to be on the wire
 *        flood PORT                           has datagrams come there until it is ended, and reads none
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BURST = 64, FRAME_MAX = 2048 };

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static int sink(int port)
{
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(port) };
	int socket_ = socket(AF_INET, SOCK_DGRAM, 0);

	if (socket_ < 0 || bind(socket_, (struct sockaddr *)&here, sizeof(here)) != 0) {
		perror("flood");
		return 1;
	}
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	static unsigned char frames[BURST][FRAME_MAX];
	struct sockaddr_ll link = { .sll_family = AF_PACKET };
	struct mmsghdr messages[BURST] = { 0 };
	struct iovec parts[BURST];
	unsigned long sent = 0;
	int number, socket_, bypass = 1;
	ssize_t length;
	struct rusage used;
	double end, time;

	if (argc == 2)
		return sink(atoi(argv[1]));
	if (argc != 3)
		return 2;
	length = read(STDIN_FILENO, frames[0], FRAME_MAX);
	socket_ = socket(AF_PACKET, SOCK_RAW, 0);
	link.sll_ifindex = if_nametoindex(argv[1]);
	if (length <= 14 || socket_ < 0 || bind(socket_, (struct sockaddr *)&link, sizeof(link)) != 0) {
		perror("flood");
		return 1;
	}
	setsockopt(socket_, SOL_PACKET, PACKET_QDISC_BYPASS, &bypass, sizeof(bypass));
	for (number = 0; number < BURST; number++) {
		memcpy(frames[number], frames[0], length);
		parts[number] = (struct iovec){ frames[number], length };
		messages[number].msg_hdr.msg_iov = &parts[number];
		messages[number].msg_hdr.msg_iovlen = 1;
	}
	for (end = now() + atof(argv[2]); now() < end;) {
		number = sendmmsg(socket_, messages, BURST, 0);
		if (number > 0)
			sent += number;
	}
	getrusage(RUSAGE_SELF, &used);
	time = used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
	printf("%lu %.0f\n", sent, sent ? time / sent * 1e9 : 0);
	return 0;
}
